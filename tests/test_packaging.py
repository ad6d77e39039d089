"""The files around the code say what the code is: the map, the citation, the image, CI and the hooks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.licenses import canonicalize_license_expression

from lentigo import __version__
from lentigo.cli.app import app
from lentigo.deploy.service import HEALTH_PATH

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
NOT_IN_THE_ARCHIVE = {".gitignore", "LICENSE", "README.md", "pyproject.toml"}
"""hatchling takes these unasked."""


def read(name: str) -> str:
    """A file of the repository."""
    return (REPOSITORY / name).read_text(encoding="utf-8")


def archived() -> set[str]:
    """What goes into the source archive, by name."""
    return {name.removeprefix("/") for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}


def maps() -> list[list[str]]:
    """The folders of each table of CONTRIBUTING.md, in order."""
    tables = re.findall(r"^\| folder \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", read("CONTRIBUTING.md"), re.MULTILINE)
    return [re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) for table in tables]


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of every instruction of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", "".join(f"{line}\n" for line in read("Dockerfile").split("\n") if line[:1] != "#"))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def last_stage() -> list[tuple[str, str]]:
    """The instructions of the image that is run."""
    given = instructions()
    return given[max(index for index, (word, _) in enumerate(given) if word == "FROM") :]


def test_map_is_the_code_from_top_to_bottom() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "src" / "lentigo").glob("*/__init__.py")}
    layers = re.findall(r"lentigo\.(\w+)", " ".join(PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]))
    assert maps()[0] == [layer for layer in reversed(layers) if layer in folders]
    assert set(maps()[0]) == folders


def test_map_names_every_folder_around() -> None:
    shown = {name for name in archived() if not name.startswith(".") and "." not in name} - {"src"}
    assert set(maps()[1]) == shown - {"Makefile", "Dockerfile"}


def test_archive_names_what_is_there() -> None:
    assert not [name for name in archived() if not (REPOSITORY / name).exists()]


def test_archive_has_all_that_is_committed() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git checkout")
    committed = {name.partition("/")[0] for name in done.stdout.splitlines()}
    assert committed - NOT_IN_THE_ARCHIVE <= archived()


def test_citation() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert citation["authors"] == PROJECT["project"]["authors"]
    assert citation["license"] in PROJECT["project"]["license"]
    assert {"message", "title", "type"} <= set(citation)
    assert "doi" not in citation, "a DOI must be that of an archived release"


def test_licences() -> None:
    expression = PROJECT["project"]["license"]
    assert canonicalize_license_expression(expression) == expression
    assert read("LICENSE").startswith("MIT License")
    assert not [name for name in PROJECT["project"]["classifiers"] if name.startswith("License")]


def test_ci_is_ci_run() -> None:
    (job,) = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)
    python = re.fullmatch(r"python:(3\.\d+)-\w+", job["container"]["image"])
    assert python is not None
    assert f">={python[1]}" == PROJECT["project"]["requires-python"]
    for step in job["steps"]:
        assert "run" in step or re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"]), step


def test_hooks_are_those_of_the_lint() -> None:
    (own,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    hooks = [hook["entry"].replace(" --force-exclude", "") for hook in own["hooks"]]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    assert lint is not None
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in lint[1].splitlines()]
    assert hooks == [re.sub(r"( --check)? \.$", "", command) for command in commands]


def test_image_starts_a_service_that_is_well() -> None:
    stage = dict(last_stage())
    words = json.loads(stage["ENTRYPOINT"])
    assert words[:2] == ["lentigo", "serve"]
    commands = getattr(typer.main.get_command(app), "commands", {})
    given = commands["serve"].make_context("serve", words[2:]).params
    assert (given["host"], given["port"]) == ("0.0.0.0", int(stage["EXPOSE"]))
    assert given["token"] is None, "a secret comes at the start, not with the image"
    program = json.loads(stage["HEALTHCHECK"].partition("CMD ")[2])
    assert program[:2] == ["python", "-c"]
    compile(program[2], "HEALTHCHECK", "exec")
    assert f"http://127.0.0.1:{stage['EXPOSE']}{HEALTH_PATH}'" in program[2]


def test_image_runs_as_nobody_in_particular() -> None:
    user = dict(last_stage())["USER"]
    assert user.partition(":")[0] not in ("", "0", "root")
    created = next(rest for word, rest in last_stage() if word == "RUN")
    assert f"--uid {user.partition(':')[0]} " in created
    assert not re.search(r"TOKEN|SECRET|PASSWORD", "\n".join(rest for _, rest in instructions()))


def test_image_is_made_of_what_is_there() -> None:
    """Sources exist, are sent to the builder, and are the only things sent."""
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    sources = {source for group in copied for source in group}
    assert not [source for source in sources if not (REPOSITORY / source).exists()]
    rules = [line for line in read(".dockerignore").splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*", "all is left out but what is named"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {
        source.partition("/")[0] if source.startswith("tools/") else source for source in sources
    }
    stages = [rest.partition(" AS ")[2] for word, rest in instructions() if word == "FROM"]
    named = {match[1] for _, rest in instructions() if (match := re.match(r"--from=(\w+)", rest))}
    assert named == {stage for stage in stages if stage}


def test_image_installs_extras_that_exist() -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    known = set(PROJECT["project"]["optional-dependencies"])
    assert "serve" in arguments["EXTRAS"].split(",")
    assert set(arguments["EXTRAS"].split(",")) <= known
    for named in re.findall(r"EXTRAS=([\w,]+)", read("Dockerfile")):
        assert set(named.split(",")) <= known
