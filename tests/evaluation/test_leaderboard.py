"""The leaderboard: what stands together, in which order, and that its numbers are those of the single tools."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.predictions import Predictions
from lentigo.evaluation.compare import compare
from lentigo.evaluation.ensemble import build_ensemble
from lentigo.evaluation.evaluate import judge
from lentigo.evaluation.leaderboard import Leaderboards, leaderboard
from lentigo.evaluation.leaderboard_page import cost_cells, leaderboard_markdown, network_text, score_cells
from lentigo.evaluation.significance import holm
from lentigo.models.cost import architecture_cost

from .judged import judged_run, predictions

V3 = ("model.architecture=mobilenet_v3_large", "inference.views=4", "preprocess.resize_steps_px=[96]")


@pytest.fixture
def root(tmp_path):
    """Three runs on the same rows, one of another architecture, two on other rows, two that are not judged."""
    judged_run(tmp_path, "weak", {"val": predictions(1, 0.5), "test": predictions(4, 0.5)}, looks=2)
    judged_run(tmp_path, "middle", {"val": predictions(2, 1.0)}, overrides=V3)
    judged_run(tmp_path, "strong", {"val": predictions(3, 2.0)}, recipe="paper-v2")
    judged_run(tmp_path, "drawn", {"val": predictions(5, 3.0, 70)}, rows="b" * 64, synthetic=True)
    judged_run(tmp_path, "new", {})
    judged_run(tmp_path, "nameless", {"val": predictions(6, 1.0)}).catalog_digest.unlink()
    return tmp_path


def found(root, **options):
    return leaderboard(root, **{"resamples": 150} | options)


def names(table):
    return [row.name for row in table.rows]


def test_only_judged_runs_on_the_same_rows_stand_together(root):
    board = found(root)
    assert [names(table) for table in board.tables] == [["strong", "middle", "weak"], ["drawn"]]
    assert board.left_out == {"new": "not judged on val", "nameless": "no catalog.sha256"}
    ours, drawn = board.tables
    assert (ours.n_images, ours.n_lesions, ours.synthetic, ours.rows_sha256) == (140, 140, False, "a" * 64)
    assert (drawn.n_images, drawn.synthetic) == (70, True)
    assert names(found(root, split="test").tables[0]) == ["weak"]


def test_numbers_are_those_of_judge_and_compare(root):
    table = found(root, seed=3).tables[0]
    tables = {"strong": predictions(3, 2.0), "middle": predictions(2, 1.0), "weak": predictions(1, 0.5)}
    compared = compare({name: [one] for name, one in tables.items()}, split="val", resamples=150, seed=3)
    expected = [one.metrics["balanced_accuracy"] for one in compared.comparisons]
    assert [row.against_best for row in table.rows] == [None, *expected]
    assert [one.p_holm for one in expected] == holm([one.p for one in expected])
    for row in table.rows:
        judged = judge(tables[row.name], split="val", resamples=150, seed=3).metrics
        assert row.scores["balanced_accuracy"] == judged["balanced_accuracy"]
        assert row.scores["malignant_auc"].n == 60


def test_costs_and_course_of_the_run(root):
    rows = {row.name: row for row in found(root).tables[0].rows}
    strong, middle, weak = rows["strong"], rows["middle"], rows["weak"]
    assert strong.cost == architecture_cost("mobilenet_v2", 224, 7)
    assert middle.cost.macs == 4 * architecture_cost("mobilenet_v3_large", 96, 7).macs
    assert (weak.training_min, weak.test_looks, strong.test_looks, weak.latency) == (2.0, 2, 0, None)
    assert network_text(strong.members) == "mobilenet_v2, gray 224 px"
    assert network_text(middle.members) == "mobilenet_v3_large, rgb 96 px, 4 views"
    assert (strong.members[0].recipe, strong.members[0].seed) == ("paper-v2", 0)


@pytest.mark.parametrize(
    ("metric", "best"), [("accuracy", "strong"), ("malignant_auc", "strong"), ("log_loss", "strong")]
)
def test_sorted_by_the_metric_best_first(root, metric, best):
    table = found(root, metric=metric).tables[0]
    values = [row.scores[metric].value for row in table.rows]
    assert values == sorted(values, reverse=metric != "log_loss")
    assert names(table) == ["strong", "middle", "weak"]
    headers, _ = score_cells(table)
    assert headers[1] == {"accuracy": "accuracy", "malignant_auc": "malignant AUC", "log_loss": "log loss"}[metric]


def test_ensembles_stand_beside_their_members(root):
    build_ensemble([root / "strong", root / "middle"], root=root, name="both", resamples=150)
    table = found(root).tables[0]
    rows = {row.name: row for row in table.rows}
    assert set(rows) == {"strong", "middle", "weak", "both"}
    for field in ("parameters", "macs", "float32_mb"):
        parts = [getattr(rows[name].cost, field) for name in ("strong", "middle")]
        assert getattr(rows["both"].cost, field) == pytest.approx(sum(parts))
    assert rows["both"].training_min == 4.0
    assert network_text(rows["both"].members) == "2 runs: mobilenet_v2, mobilenet_v3_large"


def test_latency_is_measured_on_request(tmp_path):
    for name, views in (("one", 1), ("two", 2)):
        overrides = ("preprocess.resize_steps_px=[32]", f"inference.views={views}")
        judged_run(tmp_path, name, {"val": predictions(views, 1.0, 28)}, overrides=overrides)
    build_ensemble([tmp_path / "one", tmp_path / "two"], root=tmp_path, name="both", resamples=150)
    table = found(tmp_path, latency=True).tables[0]
    times = {row.name: row.latency for row in table.rows}
    assert 0.0 < times["one"].low_ms <= times["one"].median_ms <= times["one"].high_ms
    assert times["both"].median_ms == pytest.approx(times["one"].median_ms + times["two"].median_ms)
    headers, rows = cost_cells(table)
    assert "ms an image" in headers
    assert all(len(row) == len(headers) for row in rows)


def test_a_single_run_and_none_at_all(tmp_path):
    assert found(tmp_path / "none") == Leaderboards(tables=(), left_out={})
    judged_run(tmp_path, "only", {"val": predictions(1, 1.0)})
    (row,) = found(tmp_path).tables[0].rows
    assert row.against_best is None
    assert row.scores["accuracy"].ci_low is not None


def test_undefined_scores_come_last_and_are_null(tmp_path):
    """No image of a malignant class: its AUC is undefined for all, and nothing can be best."""
    labels = np.full(30, 5)
    ids = tuple(str(i) for i in range(30))
    for k, name in enumerate("ab"):
        logits = np.random.default_rng(k).normal(size=(30, 7)).astype(np.float32)
        judged_run(tmp_path, name, {"val": Predictions(ids, ids, labels, logits)})
    table = found(tmp_path, metric="malignant_auc").tables[0]
    assert [row.scores["malignant_auc"].value for row in table.rows] == [None, None]
    assert [row.scores["malignant_auc"].n for row in table.rows] == [0, 0]
    assert table.rows[1].against_best.value is None
    _, rows = score_cells(table)
    assert (rows[0][1], rows[0][-2], rows[1][-2], rows[1][-1]) == ("–",) * 4


def test_predictions_that_do_not_fit_their_rows_are_refused(root):
    predictions(9, 1.0, 130).to_csv(root / "weak" / "predictions" / "val.csv")
    with pytest.raises(DataError, match="10 images"):
        found(root)


@pytest.mark.parametrize("options", [{"metric": "recall"}, {"split": "train"}])
def test_wrong_options_are_refused(root, options):
    with pytest.raises(ConfigError):
        found(root, **options)


def test_plain_and_markdown(root):
    board = found(root)
    assert Leaderboards.model_validate(json.loads(json.dumps(board.as_dict(), allow_nan=False))) == board
    page = leaderboard_markdown(board)
    lines = page.splitlines()
    headers = [line for line in lines if line.startswith("| run ")]
    strong = [line for line in lines if line.startswith("| strong ")]
    for header, row in zip(headers[:2], strong, strict=True):
        assert header.count("|") == row.count("|") == lines[lines.index(header) + 1].count("|")
    assert "| best |" in strong[0]
    assert strong[1] == "| strong | mobilenet_v2, gray 224 px | 2.23 | 0.30 | 9.1 | 4.5 | 2 | 0 |"
    assert "## val, rows aaaaaaaaaaaa" in page
    assert "Holm p over 2 of them" in page
    assert "new (not judged on val)" in page
    assert board.tables[1].notice in page
    assert "one more look" in leaderboard_markdown(found(root, split="test"))
