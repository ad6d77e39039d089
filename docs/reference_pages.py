"""The pages of docs/reference that are written from the code: commands, recipe keys, files."""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import typer
from api_page import NOTE, api_page, doc_text, first_line
from pydantic import BaseModel

from lentigo.cli.app import app
from lentigo.core.errors import ExitCode
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import all_keys, load_recipe, recipe_names
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.catalog import Row
from lentigo.deploy.exported import ExportedModel
from lentigo.deploy.parity import Parity
from lentigo.deploy.prediction import Prediction
from lentigo.evaluation.calibration import Calibration
from lentigo.evaluation.markdown import table
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.study import GridRow, Study, Teacher
from lentigo.training.mining_table import RoundTable

EXIT_CODES = {
    ExitCode.OK: "done",
    ExitCode.BUG: "a bug in Lentigo; the traceback is printed",
    ExitCode.USAGE: "wrong option, recipe key or missing package",
    ExitCode.DATA: "data, weights or runs that cannot be used as they are",
    ExitCode.GATE: "a quality gate failed",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C or SIGTERM; a training saves its state first",
}

RESULT_KEYS = {
    "recipe": "name of the recipe",
    "recipe_changes": "keys that differ from it",
    "track": "name of the data",
    "synthetic": "whether it was trained on drawings",
    "seed": "seed of everything random",
    "state": "how the training ended",
    "best_epoch": "epoch whose weights were kept",
    "elapsed_s": "seconds of training",
    "machine": "processor, cores, threads, platform, versions",
    "lentigo": "version and commits that took part",
    "data": "name, sha256 of the catalogue, numbers of images",
    "test_looks": "how often the run was judged on test",
    "settings": "all settings, section by section",
    "log": "one entry an epoch",
    "study": "name, row and kind of control, and the digest of all that decides the result",
    "metrics": "split -> scores, each an estimate with n; per class; confusion matrix",
}


def commands_page() -> str:
    """docs/reference/cli.md."""
    parts = ["# Commands", "", NOTE, "", *_commands(typer.main.get_command(app), "lentigo")]
    parts += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    parts += [f"| {int(code)} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(parts) + "\n"


def _commands(command: Any, path: str) -> list[str]:
    """Markdown of a command, or of all commands of a group."""
    if getattr(command, "commands", None):
        return [line for name, child in sorted(command.commands.items()) for line in _commands(child, f"{path} {name}")]
    lines = [f"## `{path}`", "", _help_text(command.help or ""), ""]
    options = [parameter for parameter in command.params if parameter.name != "help"]
    if options:
        lines += ["| argument or option | meaning |", "|---|---|"]
        for parameter in options:
            is_argument = parameter.param_type_name == "argument"
            name = parameter.name.upper() if is_argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
            value = parameter.default
            unset = parameter.required or value is None or value is False or value in ("", ())
            default = "" if unset else f" Default {value}."
            lines.append(f"| `{name}` | {getattr(parameter, 'help', None) or ''}{default} |")
        lines.append("")
    return lines


def _help_text(text: str) -> str:
    """The help of a command, its examples as one block of code."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    lines: list[str] = []
    for paragraph in filter(None, paragraphs):
        example = re.fullmatch(r"`(lentigo[^`]*)`", paragraph)
        follows = bool(lines) and lines[-1].startswith("    ")
        lines += [] if example and follows else [""]
        lines.append(f"    {example[1]}" if example else paragraph)
    return "\n".join(lines[1:])


def config_page() -> str:
    """docs/reference/config.md."""
    recipes = [load_recipe(name).about for name in recipe_names()]
    keys = [(f"`{key}`", kind, f"`{default}`", meaning) for key, (kind, default, meaning) in all_keys().items()]
    parts = [
        "# Recipes and their keys",
        NOTE + " How to change them: [a recipe of one's own](../how-to/own-recipe.md).",
        "## Recipes",
        table(
            ("recipe", "source", "cost", "expected"),
            [(f"`{one.name}`", one.source, one.cost, one.expected) for one in recipes],
        ),
        "## Keys of a recipe",
        table(("key", "type", "default", "meaning"), keys),
        "## Keys of a study",
        "What they do together: [studies](../how-to/studies.md). A row stands in `[[rows]]`.",
    ]
    for model, title in ((Study, "The study"), (GridRow, "A row"), (Teacher, "`start` and an entry of `teachers`")):
        rows = [(f"`{field.alias or name}`", field.description or "") for name, field in model.model_fields.items()]
        parts += [f"### {title}", table(("key", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def formats_page(results: Path) -> str:
    """docs/reference/formats.md. `results` is the folder of the committed results."""
    parts = ["# Files", NOTE, "## A run's folder", "One property of `lentigo.core.run_dir.RunDir` for each."]
    parts += [table(("property", "below RUN", "content"), _run_files())]
    parts += ["## predictions/SPLIT.csv", "`lentigo.core.predictions.Predictions`. " + doc_text(Predictions)]
    parts += ["    " + _predictions_header()]
    parts += ["## The catalogue: split CSV and catalog.csv", "A column for each. " + doc_text(Row), _fields_table(Row)]
    parts += ["## mining/round-N.csv", "`weight` and `why` decide the draws. " + doc_text(RoundTable)]
    parts += ["## An estimate", "The scores of metrics.json, parity.json and results. " + doc_text(Estimate)]
    parts += [_fields_table(Estimate), "## A prediction", "A line of JSON Lines, an answer of the service."]
    parts += [doc_text(Prediction), _fields_table(Prediction)]
    seen: list[type] = [Estimate]
    for file, model in (("calibration.json", Calibration), ("model.json", ExportedModel), ("parity.json", Parity)):
        parts += [f"## {file}", doc_text(model), _fields_table(model)]
        for nested in _nested(model, seen):
            parts += [f"### {nested.__name__}", doc_text(nested), _fields_table(nested)]
    parts += ["## results/*.json", "What `lentigo report RUN --summary FILE` writes of a run, to be published."]
    parts += [table(("key", "content"), [(f"`{key}`", RESULT_KEYS[key]) for key in _result_keys(results)])]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _run_files() -> list[tuple[str, str, str]]:
    """(property, path, content) of every file and folder of a run."""
    run = RunDir(Path("RUN"))
    rows = []
    for name, member in inspect.getmembers(RunDir, lambda member: isinstance(member, property)):
        path = getattr(run, name)
        if isinstance(path, Path):
            rows.append((f"`{name}`", f"`{path.relative_to('RUN').as_posix()}`", first_line(member)))
    return sorted(rows, key=lambda row: row[1])


def _predictions_header() -> str:
    """The header that is really written."""
    empty = Predictions((), (), np.empty(0, np.int64), np.empty((0, NUM_CLASSES), np.float32))
    with tempfile.TemporaryDirectory() as folder:
        return empty.to_csv(Path(folder) / "empty.csv").read_text(encoding="utf-8").strip()


def _result_keys(results: Path) -> list[str]:
    """Keys of the committed results of runs, in their order."""
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    return list(dict.fromkeys(key for content in contents if "metrics" in content for key in content))


def _fields_table(kind: type) -> str:
    """Fields of a pydantic model or dataclass with their types."""
    if issubclass(kind, BaseModel):
        types = {name: field.annotation for name, field in kind.model_fields.items()}
    else:
        assert is_dataclass(kind)
        hints = get_type_hints(kind)
        types = {field.name: hints[field.name] for field in fields(kind)}
    return table(("field", "type"), [(f"`{name}`", f"`{_type_text(found)}`") for name, found in types.items()])


def _type_text(annotation: Any) -> str:
    """A type as it is written in code, without modules and bounds; a choice of values by `or`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return "None"
    if origin is Annotated:
        return _type_text(arguments[0])
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(map(_type_text, arguments))
    if origin is not None:
        inner = ", ".join("..." if argument is Ellipsis else _type_text(argument) for argument in arguments)
        return f"{origin.__name__}[{inner}]"
    return str(getattr(annotation, "__name__", annotation))


def _nested(kind: type[BaseModel], seen: list[type]) -> list[type]:
    """The models and dataclasses that a model's fields hold, each once, in their order; `seen` grows."""
    waiting: list[Any] = [field.annotation for field in kind.model_fields.values()]
    found = []
    while waiting:
        annotation = waiting.pop(0)
        waiting = [*get_args(annotation), *waiting]
        is_own = inspect.isclass(annotation) and (issubclass(annotation, BaseModel) or is_dataclass(annotation))
        if is_own and annotation not in seen:
            seen.append(annotation)
            found.append(annotation)
            if issubclass(annotation, BaseModel):
                found += _nested(annotation, seen)
    return found


PAGES: Mapping[str, Callable[[Path], str]] = {
    "cli.md": lambda results: commands_page(),
    "config.md": lambda results: config_page(),
    "formats.md": formats_page,
    "api.md": lambda results: api_page(),
}
"""File below docs/reference -> its writer; each is handed the folder of the committed results."""
