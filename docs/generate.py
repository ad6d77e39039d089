"""Write docs/reference/ from the code; docs/results.md and the table of README.md from results/, studies/ and
docs/published.toml.

python docs/generate.py
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from lentigo.core.shipped import DEFAULT_MODEL
from lentigo.evaluation.markdown import table
from lentigo.evaluation.results_page import (
    Result,
    estimate_text,
    loose_results,
    read_results,
    results_page,
    row_results,
)
from lentigo.evaluation.study import Study, load_studies
from lentigo.evaluation.study_compare import read_comparisons

# The documentation is no package: what lies beside this file is found wherever it is started from.
sys.path.insert(0, str(Path(__file__).parent))

from reference_pages import PAGES

DOCS = Path(__file__).parent
REFERENCE = DOCS / "reference"
README = DOCS.parent / "README.md"
PAGE = DOCS / "results.md"
RESULTS = DOCS.parent / "results"
STUDIES = DOCS.parent / "studies"
PUBLISHED = DOCS / "published.toml"
BEGIN, END = "<!-- results: written by docs/generate.py -->", "<!-- end of results -->"
COLUMNS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
NAMES = {"mobilenet_v2": "MobileNetV2", "mobilenet_v3_large": "MobileNetV3-Large"}
HEADER = ("network", "judged on", "views", *COLUMNS.values(), "n")
PUBLISHED_HEADER = ("network", "judged on", *COLUMNS.values(), "n", "source")


def reference_pages() -> dict[Path, str]:
    """Every page below docs/reference that is written from the code."""
    return {REFERENCE / name: write(RESULTS) for name, write in PAGES.items()}


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
    return table(HEADER, own_rows())


def own_rows() -> list[tuple[str, ...]]:
    """The cells of `results_table`."""
    found, grids = read_results(RESULTS), studies()
    rows: list[tuple[str, ...]] = []
    for stem, result in loose_results(grids.values(), found).items():
        architecture = result["settings"]["model"]["architecture"]
        name = f"{NAMES.get(architecture, architecture)}, recipe {result['recipe']}"
        name = f"**The shipped model**, {name}" if stem == DEFAULT_MODEL else name
        rows += _judged_rows(f"[{name}](results/{stem}.json)", [result])
    for study in grids.values():
        for row in study.rows:
            runs = list(row_results(study, row, found).values()) if row.readme else []
            count = f", {len(runs)} seeds" if len(runs) > 1 else ""
            rows += _judged_rows(f"[{row.title}{count}](docs/results.md)", runs)
    return rows


def _judged_rows(name: str, runs: list[Result]) -> list[tuple[str, ...]]:
    """One row per judged split."""
    rows = []
    for split in runs[0]["metrics"] if runs else ():
        judgements = [run["metrics"][split] for run in runs if split in run["metrics"]]
        scores = [estimate_text([judgement["metrics"][column] for judgement in judgements]) for column in COLUMNS]
        views = str(runs[0]["settings"].get("inference", {}).get("views", 1))
        rows.append((name, f"{runs[0]['track']}, {split}", views, *scores, str(judgements[0]["n_images"])))
    return rows


def published_rows(group: str) -> list[tuple[str, ...]]:
    """Cells of what others published: `report` or `peer`; what they do not state is a dash."""
    entries: list[dict[str, Any]] = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))["rows"]
    names = ("model", "judged_on", *COLUMNS, "n", "source")
    return [tuple(str(entry.get(name, "–")) for name in names) for entry in entries if entry["group"] == group]


def readme_tables() -> str:
    """What the report published, what was measured here, what others published."""
    parts = [
        "**Published by the report** (its numbers, on its own choice of images, the one on which it chose)",
        table(PUBLISHED_HEADER, published_rows("report")),
        "**Measured here**",
        results_table(),
        "**Published by others** (their numbers, on other splits and other images)",
        table(PUBLISHED_HEADER, published_rows("peer")),
    ]
    return "\n\n".join(parts)


def readme_with_results(text: str) -> str:
    """README text with fresh tables between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{readme_tables()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(readme_with_results(README.read_text(encoding="utf-8")), encoding="utf-8")
    for path, text in reference_pages().items():
        path.write_text(text, encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
