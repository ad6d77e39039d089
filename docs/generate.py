"""Write docs/reference.md from the code, and the results table of README.md from results/*.json.

python docs/generate.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from lentigo.cli.app import app
from lentigo.core.config import all_keys, load_recipe, recipe_names
from lentigo.core.errors import ExitCode

REFERENCE = Path(__file__).parent / "reference.md"
README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parents[1] / "results"
BEGIN, END = "<!-- results: written by docs/generate.py -->", "<!-- end of results -->"
COLUMNS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc")

EXIT_CODES = {
    ExitCode.OK: "done",
    ExitCode.BUG: "a bug in Lentigo; the traceback is printed",
    ExitCode.USAGE: "wrong option, recipe key or missing package",
    ExitCode.DATA: "data, weights or runs that cannot be used as they are",
    ExitCode.GATE: "a quality gate failed",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C or SIGTERM; a training saves its state first",
}


def reference() -> str:
    """The whole page as Markdown."""
    parts = ["# Reference", "", "Written by `python docs/generate.py` from the code.", ""]
    parts += ["## Commands", "", *_commands(typer.main.get_command(app), "lentigo")]
    parts += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    parts += [f"| {int(code)} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    parts += ["", "## Recipes", "", "| recipe | source | cost | expected |", "|---|---|---|---|"]
    for name in recipe_names():
        about = load_recipe(name).about
        parts.append(f"| `{about.name}` | {about.source} | {about.cost} | {about.expected} |")
    parts += ["", "## Recipe keys", "", "| key | type | default | meaning |", "|---|---|---|---|"]
    for key, (kind, default, meaning) in all_keys().items():
        parts.append(f"| `{key}` | {kind.replace('|', '/')} | `{default}` | {meaning} |")
    return "\n".join(parts) + "\n"


def _commands(command, path: str) -> list[str]:  # type: ignore[no-untyped-def]
    """Markdown of a command, or of all commands of a group."""
    if getattr(command, "commands", None):
        return [line for name, child in command.commands.items() for line in _commands(child, f"{path} {name}")]
    lines = [f"### `{path}`", "", _unfold(command.help or ""), ""]
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


def _unfold(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def results_table() -> str:
    """One row per committed run and judged split, with intervals and n."""
    header = (
        "run",
        "track, split",
        *(name.replace("_", " ").replace("f1", "F1").replace("auc", "AUC") for name in COLUMNS),
        "n",
        "training",
    )
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if "metrics" not in result:
            continue
        for split, judgement in result["metrics"].items():
            cells = [f"[`{path.stem}`](results/{path.name})", f"{result['track']}, {split}"]
            cells += [_estimate(judgement["metrics"][name]) for name in COLUMNS]
            cells += [
                str(judgement["n_images"]),
                f"{(result['elapsed_s'] or 0) / 60:.0f} min, {result['machine']['cores']} cores",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _estimate(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "undefined"
    bounds = "" if estimate["ci_low"] is None else f" [{estimate['ci_low']:.3f}, {estimate['ci_high']:.3f}]"
    return f"{estimate['value']:.3f}{bounds}"


def readme_with_results(text: str) -> str:
    """README text with a fresh table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{results_table()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(readme_with_results(README.read_text(encoding="utf-8")), encoding="utf-8")
    REFERENCE.write_text(reference(), encoding="utf-8")
