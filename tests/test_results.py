"""Committed results: the pages repeat them to the digit; they carry intervals and name no machine's folders."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lentigo.core.predictions import Predictions
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.evaluation.metrics import score
from lentigo.evaluation.results_page import METRICS, read_results, results_page
from lentigo.evaluation.study import Study, parse_study
from lentigo.evaluation.study_compare import compare_rows, comparison_file, read_comparisons
from lentigo.evaluation.study_plan import Folders

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = sorted((REPOSITORY / "results").glob("*.json"))


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The module docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_repeats_the_results(generate: ModuleType) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert generate.readme_with_results(readme) == readme, "run python docs/generate.py"


def test_page_repeats_the_results(generate: ModuleType) -> None:
    assert generate.PAGE.read_text(encoding="utf-8") == generate.page(), "run python docs/generate.py"


@pytest.mark.parametrize("metric", METRICS)
def test_page_follows_every_number(generate: ModuleType, metric: str) -> None:
    results = copy.deepcopy(read_results(generate.RESULTS))
    next(iter(results.values()))["metrics"]["val"]["metrics"][metric]["value"] += 0.001
    tests = {study.name: read_comparisons(study, generate.RESULTS) for study in generate.studies().values()}
    assert results_page(generate.studies(), read_results(generate.RESULTS), tests) == generate.PAGE.read_text("utf-8")
    assert results_page(generate.studies(), results, tests) != generate.PAGE.read_text(encoding="utf-8")


def study_of(*rows: dict[str, Any], **changes: Any) -> Study:
    """A study of the quick recipe."""
    filled = [{"recipe": "quick", **row} for row in rows]
    return parse_study({"name": "s", "title": "A study", "track": "rgb-3k", "rows": filled, **changes}, "here")


@pytest.fixture
def result() -> dict[str, Any]:
    """A result to change."""
    return dict(json.loads((REPOSITORY / "results" / "quick-rgb-v2.json").read_text(encoding="utf-8")))


def with_accuracy(result: dict[str, Any], value: float) -> dict[str, Any]:
    """A copy of the result with another accuracy, its interval two hundredths wide."""
    changed = copy.deepcopy(result)
    changed["metrics"]["val"]["metrics"]["accuracy"] |= {
        "value": value,
        "ci_low": value - 0.01,
        "ci_high": value + 0.01,
    }
    return changed


def test_page_shows_seeds_and_what_is_not_run(result: dict[str, Any]) -> None:
    study = study_of({"id": "a", "label": "First", "seeds": [0, 1, 2]}, {"id": "b", "label": "Second"}, per_class=True)
    found = {f"s-a-s{seed}": with_accuracy(result, value) for seed, value in ((0, 0.80), (2, 0.84))}
    page = results_page({"s.toml": study}, found)
    (line,) = [line for line in page.splitlines() if line.startswith("| First | [0](../results/s-a-s0.json), [2]")]
    assert "(n = 2; 1 not run) | 0.820 ± 0.028 [0.810, 0.830] |" in line
    assert "8 epochs, 744 steps, 15 min, 2 cores | `quick` |" in line
    assert "| Second | not run |" in page
    assert "Always answering nv scores 0.670 accuracy" in page
    assert "| row | akiec (36) | bcc (60) |" in page
    assert "### s, test" not in page
    assert "Single runs" not in page


def test_page_says_where_a_training_shared_its_machine(result: dict[str, Any]) -> None:
    result["machine"] |= {"cores": 2, "threads": 1}
    assert ", 1 of 2 cores | `quick` |" in results_page({"s.toml": study_of({"id": "a"})}, {"s-a-s0": result})


def test_page_counts_looks_at_test(result: dict[str, Any]) -> None:
    result["metrics"]["test"] = result["metrics"]["val"]
    study = study_of({"id": "a", "seeds": [0, 1]}, splits=["val", "test"])
    page = results_page({"s.toml": study}, {"s-a-s0": result | {"test_looks": 1}, "s-a-s1": result | {"test_looks": 2}})
    table = page.partition("### s, test")[2]
    assert "| looks |" in table
    assert "| 1 + 2 |" in table


def test_page_shows_loose_results_and_how_they_were_made(result: dict[str, Any]) -> None:
    result |= {"recipe_changes": ["preprocess.color_mode", "preprocess.resize_steps_px"], "synthetic": True}
    page = results_page({"s.toml": study_of({"id": "a"})}, {"mine": result})
    assert "### mine" in page
    assert "--set preprocess.color_mode=rgb --set 'preprocess.resize_steps_px=[224]'" in page
    assert SYNTHETIC_NOTICE in page


def test_undefined_scores_are_named(result: dict[str, Any]) -> None:
    result["metrics"]["val"]["metrics"]["macro_auc"] |= {"value": None, "ci_low": None, "ci_high": None}
    assert "| undefined |" in results_page({"s.toml": study_of({"id": "a"})}, {"s-a-s0": result})


def test_readme_shows_a_studys_row_where_asked(
    generate: ModuleType, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of({"id": "a", "label": "First", "seeds": [0, 1], "readme": True}, {"id": "b", "label": "Second"})
    monkeypatch.setattr(generate, "studies", lambda: {"s.toml": study})
    monkeypatch.setattr(generate, "read_results", lambda folder: dict.fromkeys(("s-a-s0", "s-a-s1", "s-b-s0"), result))
    lines = generate.results_table().splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| [First, 2 seeds](docs/results.md) | rgb-3k, val | 1 | 0.824 ± 0.000 [0.801, 0.846] |")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_names_no_folder_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [word for word in ("/home/", "/root/", "/work/", "/tmp/", "/Users/", "C:\\") if word in text]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_of_a_run_has_intervals_and_counts(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    if "metrics" not in result:
        pytest.skip("a benchmark, not a run")
    assert result["track"]
    assert not [c for c in result["lentigo"]["commits"] if c.endswith("+")], "made by uncommitted code"
    for judgement in result["metrics"].values():
        assert judgement["n_images"] > 0
        assert sum(map(sum, judgement["confusion"])) == judgement["n_images"]
        for estimate in judgement["metrics"].values():
            if estimate["ci_low"] is not None:
                assert estimate["ci_low"] <= estimate["value"] <= estimate["ci_high"]
            assert estimate["n"] > 0


def test_paired_tests_follow_from_the_committed_predictions(generate: ModuleType) -> None:
    compared = [one for one in generate.studies().values() if comparison_file(one, generate.RESULTS).is_file()]
    assert compared
    for study in compared:
        committed = json.loads(comparison_file(study, generate.RESULTS).read_text(encoding="utf-8"))
        again = compare_rows(study, Folders(Path("runs"), generate.RESULTS))
        assert committed.keys() == again.keys()
        for split, one in committed.items():
            assert one["seeds"] == again[split]["seeds"]
            for was, now in zip(one["compared"]["comparisons"], again[split]["compared"]["comparisons"], strict=True):
                for name, difference in was["metrics"].items():
                    assert now["metrics"][name]["value"] == pytest.approx(difference["value"], abs=1e-9)
                    found = now["metrics"][name]
                    for bound in ("ci_low", "ci_high"):
                        assert found[bound] == pytest.approx(difference[bound], abs=1e-3)
                    assert found["p_holm"] == pytest.approx(difference["p_holm"], abs=2e-3)
                    assert found["finding"] == difference["finding"]


PREDICTED = [
    (path, split)
    for path in RESULTS
    for split in ("val", "test")
    if (path.parent / "predictions" / f"{path.stem}.{split}.csv").is_file()
]


def test_results_have_predictions() -> None:
    assert len(PREDICTED) > 50


@pytest.mark.parametrize(("path", "split"), PREDICTED, ids=lambda part: getattr(part, "stem", part))
def test_scores_follow_from_the_committed_predictions(path: Path, split: str) -> None:
    judged = json.loads(path.read_text(encoding="utf-8"))["metrics"][split]
    table = Predictions.from_csv(path.parent / "predictions" / f"{path.stem}.{split}.csv")
    found = score(table.label, table.probs).overall
    assert len(table) == judged["n_images"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "log_loss"):
        assert judged["metrics"][name]["value"] == pytest.approx(float(found[name][0]), abs=1e-9), name
