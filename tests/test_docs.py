"""The documentation says what the program does: command lines parse, keys, files and links exist."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

from lentigo.cli.app import app
from lentigo.core.config import Config
from lentigo.core.errors import ConfigError
from lentigo.core.recipes import all_keys, load_recipe, recipe_names

UsageError = typer.BadParameter.__mro__[1]
REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
ROOT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES = (*(REPOSITORY / name for name in ROOT_PAGES), *sorted(DOCS.rglob("*.md")))
TOP_FOLDERS = "docs|src|tests|benchmarks|results|tools"


def page_id(page: Path) -> str:
    """How a test names a page: its path within the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def page_text(page: Path) -> str:
    """A page with continued lines joined."""
    return page.read_text(encoding="utf-8").replace("\\\n", " ")


def code_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Lines of fenced and indented blocks, and inline code; the flag tells which is inline."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip().removeprefix("$ "), False
        else:
            yield from ((code, True) for code in re.findall(r"`([^`]+)`", line))


def command_lines(page: Path) -> list[tuple[list[str], bool]]:
    """The arguments of every `lentigo ...` on a page, also behind torchrun and `python -m`."""
    launcher = r"(?:torchrun|python3?(?:\.11)?)\s.*?-m\s+|\.venv/bin/"
    found = []
    for line, inline in code_lines(page_text(page)):
        command, _, _ = line.partition(" > ")
        match = re.match(rf"(?:{launcher})?lentigo(?:\s+(.*))?$", command)
        if match:
            found.append((shlex.split(match[1] or "", comments=True), inline))
    return found


COMMANDS = [
    pytest.param(arguments, inline, id=f"{page_id(page)}: {' '.join(arguments)}")
    for page in PAGES
    for arguments, inline in command_lines(page)
]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The module docs/generate.py."""
    specification = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_reference_is_up_to_date(generator: ModuleType) -> None:
    for path, text in generator.reference_pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `python docs/generate.py`"


def test_commands_were_found() -> None:
    """A change of style in the pages must not silence the next test."""
    assert len(COMMANDS) > 20
    assert command_lines(REPOSITORY / "README.md")


def parse(arguments: list[str], inline: bool) -> None:
    """Fail where command, options or kinds of values are wrong; prose may leave positional arguments out."""
    command = typer.main.get_command(app)
    rest = list(arguments)
    while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    if "--help" in rest or (inline and not rest) or getattr(command, "commands", None):
        assert set(rest) <= {"--help", "--version"}
        return
    given = command.make_context("lentigo", list(rest), resilient_parsing=True).params
    positional = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    missing = [parameter.name for parameter in positional if parameter.required and not given[parameter.name]]
    context = command.make_context("lentigo", [*rest, *(missing if inline else ())])
    assert load_recipe("quick", context.params.get("overrides") or ())
    recipe = context.params.get("recipe")
    assert recipe is None or recipe in recipe_names() or recipe.isupper() or recipe.endswith(".toml"), recipe


@pytest.mark.parametrize(("arguments", "inline"), COMMANDS)
def test_command_line_parses(arguments: list[str], inline: bool) -> None:
    parse(arguments, inline)


@pytest.mark.parametrize(
    "line",
    [
        "trian x",
        "data chekc x",
        "train x --epochs 3",
        "train x --recipe quik",
        "train x --devices many",
        "train x --set training.epoch=2",
        "evaluate",
        "config --devices 2",
    ],
)
def test_wrong_command_line_is_noticed(line: str) -> None:
    with pytest.raises((AssertionError, ConfigError, UsageError)):
        parse(line.split(), inline=False)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_recipe_keys_exist(page: Path) -> None:
    sections = "|".join(Config.model_fields)
    text = page_text(page)
    named = {key for code, _ in code_lines(text) for key in re.findall(rf"(?<![/.])\b(?:{sections})\.[a-z_]+\b", code)}
    named = {key for key in named if not key.endswith((".csv", ".toml", ".json", ".md", ".txt", ".html", ".py"))}
    assert named <= set(all_keys())


def test_index_names_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"index.md"}
    assert linked == pages


def test_published_numbers_name_their_source(generator: ModuleType) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    groups = [generator.published_rows(group) for group in ("report", "peer")]
    assert all(groups)
    for row in itertools.chain(*groups):
        assert len(row) == len(generator.PUBLISHED_HEADER)
        assert row[-1] not in ("", "–"), f"{row[0]} has no source"
        assert f"| {' | '.join(row)} |" in readme, "run `python docs/generate.py`"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    text = page_text(page)
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        assert file.is_relative_to(REPOSITORY), f"{page.name} links out of the repository: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_exist(page: Path) -> None:
    """Files of the repository that a page names by path, outside command lines."""
    prose = re.sub(r"`(?:lentigo|pip|make|torchrun)[^`]*`", "", page_text(page))
    prose = "\n".join(line for line in prose.splitlines() if not re.match(r" {4,}(lentigo|torchrun)", line))
    for name in re.findall(rf"(?<![\w/.-])((?:{TOP_FOLDERS})/[\w./-]*\w)", prose):
        assert (REPOSITORY / name).exists(), f"{page.name} names {name}"


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for line, _ in code_lines(page_text(page)):
            match = re.match(r"make ([a-z]+)", line)
            assert not match or re.search(rf"^{match[1]}:", makefile, re.MULTILINE), f"{page.name}: {line}"


def test_recipes_are_documented() -> None:
    """Every recipe says what it is, where it comes from and what it costs."""
    for name in recipe_names():
        about = load_recipe(name).about
        assert about.name == name
        assert all((about.source, about.cost, about.expected)), name
