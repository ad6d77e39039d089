"""The paired tests of a study: its rows against one of them, from the committed predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lentigo.core.files import write_json_atomic
from lentigo.core.predictions import Predictions
from lentigo.evaluation.compare import Comparisons, compare
from lentigo.evaluation.study import Study
from lentigo.evaluation.study_plan import Folders, read_result


def compare_rows(study: Study, folders: Folders) -> dict[str, dict[str, Any]]:
    """Split -> `seeds`, and `compared` as `Comparisons.as_dict`; only splits where two rows or more have results.

    The baseline is compared with every row that has all its seeds in the study and a result of at least one, on the
    seeds that all of these have finished: a row with one seed would leave the others one seed each. Finished is what
    has its result file.
    """
    found: dict[str, dict[str, Any]] = {}
    if study.baseline is None:
        return found
    first = next(row for row in study.rows if row.id == study.baseline)
    for split in study.splits:
        done = {
            row.id: {seed for seed in row.seeds if _is_done(study, folders, row.id, seed, split)}
            for row in (first, *(row for row in study.rows if row.id != first.id))
            if set(first.seeds) <= set(row.seeds)
        }
        done = {row_id: seeds for row_id, seeds in done.items() if seeds}
        shared = sorted(set.intersection(*done.values())) if done else []
        if first.id not in done or len(done) < 2 or not shared:
            continue
        arms = {
            row_id: [Predictions.from_csv(folders.predictions(study.item(row_id, seed), split)) for seed in shared]
            for row_id in done
        }
        drawn = any(read_result(folders.result(study.item(row_id, shared[0])))["synthetic"] for row_id in done)
        tested = compare(arms, split=split, metric=study.metric, margin=study.margin, synthetic=drawn)
        found[split] = {"seeds": shared, "compared": tested.as_dict()}
    return found


def _is_done(study: Study, folders: Folders, row_id: str, seed: int, split: str) -> bool:
    item = study.item(row_id, seed)
    return folders.result(item).is_file() and folders.predictions(item, split).is_file()


def comparison_file(study: Study, results: Path) -> Path:
    """Where a study's paired tests are committed."""
    return results / "comparisons" / f"{study.name}.json"


def write_comparison(study: Study, folders: Folders) -> Path | None:
    """Write the paired tests of what is done; None where there is nothing to compare."""
    found = compare_rows(study, folders)
    return write_json_atomic(comparison_file(study, folders.results), found) if found else None


def read_comparisons(study: Study, results: Path) -> dict[str, tuple[list[int], Comparisons]]:
    """Split -> seeds and tests; empty where none were written."""
    path = comparison_file(study, results)
    if not path.is_file():
        return {}
    content: Mapping[str, Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {split: (one["seeds"], Comparisons.model_validate(one["compared"])) for split, one in content.items()}
