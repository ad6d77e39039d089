"""Write docs/reference.md from the code; docs/results.md and the table of README.md from results/ and studies/.

python docs/generate.py
"""

from __future__ import annotations

from pathlib import Path

import typer

from lentigo.cli.app import app
from lentigo.core.config import all_keys, load_recipe, recipe_names
from lentigo.core.errors import ExitCode
from lentigo.evaluation.results_page import (
    Result,
    cores_text,
    estimate_text,
    loose_results,
    read_results,
    results_page,
    row_results,
)
from lentigo.evaluation.study import Study, load_studies
from lentigo.evaluation.study_compare import read_comparisons

REFERENCE = Path(__file__).parent / "reference.md"
README = Path(__file__).parents[1] / "README.md"
PAGE = Path(__file__).parent / "results.md"
RESULTS = Path(__file__).parents[1] / "results"
STUDIES = Path(__file__).parents[1] / "studies"
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


def studies() -> dict[str, Study]:
    """The repository's studies by file name."""
    return {path.name: study for path, study in load_studies(STUDIES).items()}


def page() -> str:
    """docs/results.md."""
    found = studies()
    tests = {study.name: read_comparisons(study, RESULTS) for study in found.values()}
    return results_page(found, read_results(RESULTS), tests)


def results_table() -> str:
    """One line per judged split of a run that belongs to no study, and of a study's row that says `readme = true`."""
    header = (
        "run",
        "track, split",
        *(name.replace("_", " ").replace("f1", "F1").replace("auc", "AUC") for name in COLUMNS),
        "n",
        "training",
    )
    found, grids = read_results(RESULTS), studies()
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for stem, result in loose_results(grids.values(), found).items():
        lines += _results_lines(f"[`{stem}`](results/{stem}.json)", [result])
    for study in grids.values():
        for row in study.rows:
            runs = list(row_results(study, row, found).values()) if row.readme else []
            count = f", {len(runs)} seeds" if len(runs) > 1 else ""
            lines += _results_lines(f"[{row.title}{count}](docs/results.md)", runs)
    return "\n".join(lines)


def _results_lines(name: str, runs: list[Result]) -> list[str]:
    """One line per judged split."""
    lines = []
    for split in runs[0]["metrics"] if runs else ():
        judgements = [run["metrics"][split] for run in runs if split in run["metrics"]]
        cells = [name, f"{runs[0]['track']}, {split}"]
        cells += [estimate_text([judgement["metrics"][column] for judgement in judgements]) for column in COLUMNS]
        minutes = sum((run["elapsed_s"] or 0) / 60 for run in runs) / len(runs)
        cells += [str(judgements[0]["n_images"]), f"{minutes:.0f} min, {cores_text(runs[0]['machine'])}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def readme_with_results(text: str) -> str:
    """README text with a fresh table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{results_table()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(readme_with_results(README.read_text(encoding="utf-8")), encoding="utf-8")
    REFERENCE.write_text(reference(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
