"""Paired tests of a study: which rows and seeds are compared, and that they follow from the predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lentigo.core.errors import ConfigError
from lentigo.core.files import write_json_atomic
from lentigo.core.predictions import Predictions
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.evaluation.compare import compare
from lentigo.evaluation.results_page import results_page
from lentigo.evaluation.study import Study, parse_study
from lentigo.evaluation.study_compare import compare_rows, read_comparisons, write_comparison
from lentigo.evaluation.study_plan import Folders


def study_of(seeds: dict[str, list[int]], **changes: object) -> Study:
    rows = [{"id": row, "recipe": "quick", "label": row.upper(), "seeds": own} for row, own in seeds.items()]
    return parse_study({"name": "s", "title": "A study", "track": "rgb-3k", "rows": rows, **changes}, "here")


def predictions(seed: int, skill: float) -> Predictions:
    draw, labels = np.random.default_rng(seed), np.arange(70) % 7
    logits = draw.normal(size=(70, 7)) + skill * np.eye(7)[labels]
    names = tuple(f"image-{i}" for i in range(70))
    return Predictions(names, names, labels, logits.astype(np.float32))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "runs", tmp_path / "results")


def finish(study: Study, folders: Folders, row: str, seed: int, skill: float, split: str = "val") -> Predictions:
    table = predictions(seed, skill)
    table.to_csv(folders.predictions(study.item(row, seed), split))
    write_json_atomic(folders.result(study.item(row, seed)), {"synthetic": False})
    return table


def test_rows_are_compared_on_the_seeds_that_all_have_finished(folders: Folders) -> None:
    study = study_of({"base": [0, 1, 2], "better": [0, 1, 2], "once": [0], "waits": [0, 1, 2]}, baseline="base")
    base = [finish(study, folders, "base", seed, 1.0) for seed in (0, 1, 2)]
    better = [finish(study, folders, "better", seed, 3.0) for seed in (0, 2)]
    finish(study, folders, "once", 0, 1.0)
    found = compare_rows(study, folders)
    assert found.keys() == {"val"}
    assert found["val"]["seeds"] == [0, 2]
    expected = compare({"base": [base[0], base[2]], "better": better}, split="val")
    assert found["val"]["compared"] == expected.as_dict()
    assert [one.other for one in expected.comparisons] == ["better"]
    assert expected.comparisons[0].metrics["balanced_accuracy"].finding == "better"


def test_the_baseline_comes_first_wherever_its_row_stands(folders: Folders) -> None:
    study = study_of({"other": [0], "base": [0]}, baseline="base", metric="accuracy", margin=0.2)
    for row in ("other", "base"):
        finish(study, folders, row, 0, 1.0)
    compared = compare_rows(study, folders)["val"]["compared"]
    assert (compared["metric"], compared["margin"]) == ("accuracy", 0.2)
    assert [(one["baseline"], one["other"]) for one in compared["comparisons"]] == [("base", "other")]


def test_predictions_without_a_result_are_not_compared(folders: Folders) -> None:
    study = study_of({"base": [0], "other": [0]}, baseline="base")
    for row in ("base", "other"):
        finish(study, folders, row, 0, 1.0)
    folders.result(study.item("other", 0)).unlink()
    assert compare_rows(study, folders) == {}


def test_drawn_images_are_named(folders: Folders) -> None:
    study = study_of({"base": [0], "other": [0]}, baseline="base")
    for row in ("base", "other"):
        finish(study, folders, row, 0, 1.0)
    write_json_atomic(folders.result(study.item("base", 0)), {"synthetic": True})
    write_comparison(study, folders)
    assert SYNTHETIC_NOTICE in results_page({"s.toml": study}, {}, {"s": read_comparisons(study, folders.results)})


@pytest.mark.parametrize("finished", [(), ("base",), ("other",)])
def test_nothing_is_written_without_two_rows(folders: Folders, finished: tuple[str, ...]) -> None:
    study = study_of({"base": [0], "other": [0]}, baseline="base")
    for row in finished:
        finish(study, folders, row, 0, 1.0)
    assert write_comparison(study, folders) is None
    assert read_comparisons(study, folders.results) == {}


def test_a_study_without_a_baseline_tests_nothing(folders: Folders) -> None:
    study = study_of({"base": [0], "other": [0]})
    for row in ("base", "other"):
        finish(study, folders, row, 0, 1.0)
    assert compare_rows(study, folders) == {}


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"baseline: no row bsae \(did you mean base\?\)"):
        study_of({"base": [0]}, baseline="bsae")


def test_the_page_shows_difference_interval_and_finding(folders: Folders) -> None:
    study = study_of({"base": [0, 1], "better": [0, 1]}, baseline="base")
    for row, skill in (("base", 1.0), ("better", 3.0)):
        for seed in (0, 1):
            finish(study, folders, row, seed, skill)
    write_comparison(study, folders)
    tests = read_comparisons(study, folders.results)
    page = results_page({"s.toml": study}, {}, {"s": tests})
    difference = tests["val"][1].comparisons[0].metrics["accuracy"]
    (line,) = [line for line in page.splitlines() if line.startswith("| BETTER | +")]
    assert line.startswith(f"| BETTER | {difference.value:+.3f} [{difference.ci_low:+.3f}, {difference.ci_high:+.3f}]")
    assert line.endswith("| better | shown |")
    assert "2 seeds (0, 1)" in page
