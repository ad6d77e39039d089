"""Averaged predictions: what the average is, what it promises, and what an ensemble's folder holds."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lentigo.core.errors import CheckpointError, ConfigError, DataError
from lentigo.core.predictions import Predictions, softmax
from lentigo.core.run_dir import RunDir, list_runs
from lentigo.evaluation.arms import Arm, read_arms
from lentigo.evaluation.ensemble import average, build_ensemble, read_ensemble
from lentigo.evaluation.evaluate import Judgement, judge
from lentigo.evaluation.metrics import log_losses

from .judged import judged_run, predictions


@pytest.fixture
def runs(tmp_path):
    """Three runs; `good` is best on val, `lucky` on test."""
    root = tmp_path / "runs"
    judged_run(root, "good", {"val": predictions(1, 1.6), "test": predictions(11, 0.8)}, looks=1)
    judged_run(root, "lucky", {"val": predictions(2, 1.0), "test": predictions(12, 1.9)}, looks=1)
    judged_run(root, "weak", {"val": predictions(3, 0.9)})
    return root


def paths(root, *names):
    return [root / name for name in names]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_mean_of_probabilities_is_what_its_softmax_gives():
    tables = [predictions(seed, 1.0) for seed in range(3)]
    mean = average(tables)
    np.testing.assert_allclose(mean.probs, np.mean([table.probs for table in tables], axis=0), atol=1e-6)
    np.testing.assert_array_equal(mean.label, tables[0].label)


def test_the_mean_of_logits_is_that_up_to_a_shift_per_image():
    tables = [predictions(seed, 1.0) for seed in range(3)]
    expected = softmax(np.mean([table.logits for table in tables], axis=0))
    np.testing.assert_allclose(average(tables, "logits").probs, expected, atol=1e-6)


def test_rows_in_another_order_are_lined_up():
    one, other = predictions(1, 1.0), predictions(2, 1.0)
    order = np.random.default_rng(0).permutation(140)
    mixed = Predictions(
        tuple(other.image_id[i] for i in order),
        tuple(other.lesion_id[i] for i in order),
        other.label[order],
        other.logits[order],
    )
    np.testing.assert_array_equal(average([one, mixed]).logits, average([one, other]).logits)
    short = predictions(3, 1.0, 130)
    with pytest.raises(DataError, match="10 images missing"):
        average([one, short])


@given(st.integers(0, 10_000), st.floats(0.1, 3.0), st.sampled_from(["probs", "logits"]))
def test_the_log_loss_is_at_most_the_members_mean(seed, scale, method):
    generator = np.random.default_rng(seed)
    labels, names = generator.integers(7, size=20), tuple(str(i) for i in range(20))
    tables = [
        Predictions(names, names, labels, (scale * generator.normal(size=(20, 7))).astype(np.float32)) for _ in range(3)
    ]
    mean = average(tables, method)
    lined_up = {image: row for row, image in enumerate(mean.image_id)}
    losses = log_losses(mean.label, mean.probs)[[lined_up[name] for name in names]]
    assert (losses <= np.mean([log_losses(labels, table.probs) for table in tables], axis=0) + 1e-4).all()


def test_one_member_cannot_veto_a_mean_of_probabilities():
    names = ("image-0",)
    surely_wrong = np.zeros((1, 7), np.float32)
    surely_wrong[0, 3] = 900.0
    right = np.zeros((1, 7), np.float32)
    right[0, 0] = 5.0
    tables = [Predictions(names, names, np.array([0]), logits) for logits in (right, right, surely_wrong)]
    assert average(tables).probs.argmax() == 0
    assert average(tables, "logits").probs.argmax() == 3


def test_the_folder_is_read_like_a_run(runs):
    made = build_ensemble(paths(runs, "good", "lucky", "weak"), root=runs, name="three", resamples=150)
    folder = RunDir(runs / "three")
    assert (made.best, made.best_chosen_on, made.n_images, made.test_looks) == ("good", "val", 140, 0)
    assert list(made.members) == ["good", "lucky", "weak"]
    tables, synthetic = read_arms([Arm("good", (runs / "good",)), Arm("three", (folder.path,))], "val")
    assert not synthetic
    (mean,) = tables["three"]
    np.testing.assert_array_equal(
        mean.logits, average([predictions(k, s) for k, s in ((1, 1.6), (2, 1), (3, 0.9))]).logits
    )
    judged = Judgement.from_dict(json.loads(folder.metrics.read_text())["val"])
    assert judged == judge(mean, split="val", resamples=150)
    assert made.ensemble["accuracy"] == judged.metrics["accuracy"]
    (difference,) = made.against_best.comparisons
    assert (difference.baseline, difference.other) == ("good", "three")
    assert difference.metrics["accuracy"].value == pytest.approx(
        made.ensemble["accuracy"].value - made.members["good"]["accuracy"].value
    )
    content = read_ensemble(folder.path)
    assert [member.name for member in content.members] == ["good", "lucky", "weak"]
    assert content.members[0].training_min == 2.0
    assert folder.read_status()["state"] == "done"
    assert [run.path.name for run in list_runs(runs)] == ["good", "lucky", "weak"], "an ensemble is no run"


def test_test_is_never_opened_and_the_best_is_still_that_of_val(runs):
    before = files(runs)
    with pytest.raises(DataError, match="not judged on test"):
        build_ensemble(paths(runs, "good", "weak"), root=runs, name="two", split="test", resamples=150)
    assert files(runs) == before
    made = build_ensemble(paths(runs, "good", "lucky"), root=runs, name="two", split="test", resamples=150)
    assert made.members["lucky"]["accuracy"].value > made.members["good"]["accuracy"].value
    assert (made.best, made.best_chosen_on, made.test_looks) == ("good", "val", 1)
    again = build_ensemble(paths(runs, "good", "lucky"), root=runs, name="two", split="test", resamples=150)
    assert again == made, "the same numbers a second time are no second look"
    both = build_ensemble(paths(runs, "good", "lucky"), root=runs, name="two", resamples=150)
    assert (both.split, both.test_looks) == ("val", 1)
    assert set(json.loads(RunDir(runs / "two").metrics.read_text())) == {"val", "test"}


def test_equal_members_give_their_own_numbers(runs):
    shutil.copytree(runs / "good", runs / "twin")
    made = build_ensemble(paths(runs, "good", "twin"), root=runs, name="same", resamples=150)
    assert made.ensemble["accuracy"] == made.members["good"]["accuracy"]
    assert made.against_best.comparisons[0].metrics["accuracy"].value == 0.0


def test_the_best_by_log_loss_has_the_lowest(runs):
    made = build_ensemble(paths(runs, "weak", "good"), root=runs, name="two", metric="log_loss", resamples=150)
    assert made.best == "good"


def test_what_does_not_fit_is_refused_and_leaves_nothing(runs, tmp_path):
    judged_run(runs, "foreign", {"val": predictions(1, 1.0)}, rows="b" * 64)
    judged_run(runs, "short", {"val": predictions(1, 1.0, 130)})
    judged_run(tmp_path / "other", "good", {"val": predictions(4, 1.0)})
    build_ensemble(paths(runs, "good", "lucky"), root=runs, name="taken", resamples=150)
    before = files(tmp_path)
    good = runs / "good"
    for members, options, error, message in (
        ([good], {}, ConfigError, "two or more runs; found 1"),
        ([good, good], {}, ConfigError, "different names"),
        ([good, tmp_path / "other" / "good"], {}, ConfigError, "different names"),
        ([good, runs / "foreign"], {}, DataError, "expected runs on the same rows"),
        ([good, runs / "short"], {}, DataError, "10 images missing"),
        ([good, runs / "none"], {}, CheckpointError, "not a run folder"),
        ([good, runs / "taken"], {}, CheckpointError, "not a run folder"),
        ([good, runs / "weak"], {"name": "taken"}, ConfigError, "exists already"),
        ([good, runs / "lucky"], {"name": "taken", "method": "logits"}, ConfigError, "exists already"),
        ([good, runs / "weak"], {"name": "weak"}, ConfigError, "that of a member"),
        ([good, runs / "weak"], {"name": "a/b"}, ConfigError, "plain folder name"),
        ([good, runs / "weak"], {"metric": "recall"}, ConfigError, "expected a metric"),
        ([good, runs / "weak"], {"split": "train"}, ConfigError, "val or test"),
    ):
        with pytest.raises(error, match=message):
            build_ensemble(members, **{"root": runs, "name": "new", "resamples": 150} | options)
    assert files(tmp_path) == before


def test_a_damaged_description_is_named(runs):
    build_ensemble(paths(runs, "good", "lucky"), root=runs, name="two", resamples=150)
    (runs / "two" / "ensemble.json").write_text('{"method": "sum"}')
    with pytest.raises(CheckpointError, match=r"ensemble\.json is damaged"):
        read_ensemble(runs / "two")


def test_drawings_carry_their_notice(tmp_path):
    for name in "ab":
        judged_run(tmp_path, name, {"val": predictions(ord(name), 1.0)}, synthetic=True)
    made = build_ensemble(paths(tmp_path, "a", "b"), root=tmp_path, name="two", resamples=150)
    assert made.synthetic
    assert made.notice
    assert read_arms([Arm("two", (tmp_path / "two",))], "val")[1]
