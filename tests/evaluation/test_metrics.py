"""Scores against scikit-learn, bootstrap against a naive one, and everything that is undefined."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from lentigo.core.errors import DataError
from lentigo.evaluation.metrics import (
    Estimate,
    estimate,
    percentile_interval,
    rarer_side,
    resample_weights,
    score,
    weighted_auc,
)

TOLERANCE = 1e-12


def make(seed, count, present=range(7), decimals=None):
    """Labels out of `present`, probabilities that favour them; few decimals make ties."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(np.asarray(list(present)), count).astype(np.int64)
    logits = generator.normal(size=(count, 7))
    logits[np.arange(count), labels] += 1.0
    if decimals is not None:
        logits = np.round(logits, decimals)
    exponentials = np.exp(logits)
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


def expected_scores(labels, probs):
    """The same numbers by scikit-learn; nan where it has none."""
    answers = probs.argmax(axis=1)
    overall = {
        "accuracy": oracle.accuracy_score(labels, answers),
        "balanced_accuracy": np.mean([np.mean(answers[labels == c] == c) for c in np.unique(labels)]),
        "log_loss": oracle.log_loss(labels, probs, labels=range(7)),
    }
    for average in ("macro", "weighted"):
        parts = oracle.precision_recall_fscore_support(labels, answers, average=average, zero_division=0)
        overall |= {f"{average}_{n}": v for n, v in zip(("precision", "recall", "f1"), parts[:3], strict=True)}
    parts = oracle.precision_recall_fscore_support(labels, answers, labels=range(7), zero_division=np.nan)
    auc = np.array(
        [
            oracle.roc_auc_score(labels == c, probs[:, c]) if 0 < (labels == c).sum() < len(labels) else np.nan
            for c in range(7)
        ]
    )
    overall["macro_auc"] = np.nan if np.isnan(auc).all() else np.nanmean(auc)
    return overall, {"precision": parts[0], "recall": parts[1], "f1": parts[2], "auc": auc}


CASES = {
    "plain": make(0, 300),
    "ties": make(1, 200, decimals=0),
    "absent classes": make(2, 60, present=(0, 4, 5)),
    "single class": make(3, 25, present=(5,)),
    "two images": make(4, 2),
    "one image": make(5, 1),
    "constant answer": (make(6, 40)[0], np.full((40, 7), 1 / 7)),
    "certain": (make(7, 30)[0], np.eye(7)[make(8, 30)[0]]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_score_agrees_with_scikit_learn(case):
    labels, probs = CASES[case]
    overall, per_class = expected_scores(labels, probs)
    found = score(labels, probs)
    assert set(found.overall) == set(overall)
    for name, value in overall.items():
        assert found.overall[name][0] == pytest.approx(value, abs=TOLERANCE, nan_ok=True), name
    for name in ("precision", "recall", "auc"):
        np.testing.assert_allclose(found.per_class[name][0], per_class[name], atol=TOLERANCE, err_msg=name)
    f1 = np.nan_to_num(found.per_class["f1"][0])
    np.testing.assert_allclose(f1, np.nan_to_num(per_class["f1"]), atol=TOLERANCE)
    matrix = oracle.confusion_matrix(labels, probs.argmax(axis=1), labels=range(7))
    np.testing.assert_array_equal(found.confusion[0], matrix)


def test_balanced_accuracy_is_scikit_learns_where_no_absent_class_is_answered():
    labels, probs = make(9, 400)
    expected = oracle.balanced_accuracy_score(labels, probs.argmax(axis=1))
    assert score(labels, probs).overall["balanced_accuracy"][0] == pytest.approx(expected, abs=TOLERANCE)


def test_f1_is_undefined_only_without_images_and_answers():
    labels, probs = np.array([0, 1]), np.eye(7)[[0, 2]]
    found = score(labels, probs).per_class
    assert found["f1"][0, :3].tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(found["f1"][0, 3:]).all()
    assert np.isnan(found["recall"][0, 2]) and np.isnan(found["precision"][0, 1])  # noqa: PT018


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_weighted_auc_agrees_with_scikit_learn(data):
    count = data.draw(st.integers(2, 25))
    integers = st.integers(0, 4)
    scores = np.array(data.draw(st.lists(integers, min_size=count, max_size=count)), dtype=np.float64)
    weights = np.array(data.draw(st.lists(integers, min_size=count, max_size=count)), dtype=np.float64)
    positive = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    found = weighted_auc(positive, scores, weights[:, None])[0]
    if weights[positive].sum() == 0 or weights[~positive].sum() == 0:
        assert math.isnan(found)
    else:
        expected = oracle.roc_auc_score(positive, scores, sample_weight=weights)
        assert found == pytest.approx(expected, abs=TOLERANCE)


def repeated_groups(count, lesions, seed=0):
    return [f"lesion-{i}" for i in np.random.default_rng(seed).integers(lesions, size=count)]


@pytest.mark.parametrize("present", [range(7), (2, 5), (5,)])
def test_weighted_resamples_equal_naive_ones(present):
    labels, probs = make(11, 60, present=present, decimals=1)
    groups = repeated_groups(60, 35)
    weights = np.concatenate(list(resample_weights(groups, 25, seed=3)), axis=1)
    found = score(labels, probs, weights)
    for b in range(weights.shape[1]):
        rows = np.repeat(np.arange(60), weights[:, b].astype(int))
        overall, per_class = expected_scores(labels[rows], probs[rows])
        for name, value in overall.items():
            assert found.overall[name][b] == pytest.approx(value, abs=TOLERANCE, nan_ok=True), name
        for name in ("precision", "recall", "auc"):
            np.testing.assert_allclose(found.per_class[name][b], per_class[name], atol=TOLERANCE)


def test_resamples_draw_whole_lesions_as_many_as_there_are():
    groups = repeated_groups(50, 20)
    names, index = np.unique(groups, return_inverse=True)
    weights = np.concatenate(list(resample_weights(groups, 200, seed=1)), axis=1)
    assert weights.shape == (50, 200)
    first_image = np.array([groups.index(name) for name in names])
    np.testing.assert_array_equal(weights, weights[first_image][index])
    np.testing.assert_array_equal(weights[first_image].sum(axis=0), len(names))


def test_resamples_depend_neither_on_row_order_nor_on_chunks(monkeypatch):
    groups = repeated_groups(40, 15)
    whole = np.concatenate(list(resample_weights(groups, 64, seed=5)), axis=1)
    backwards = np.concatenate(list(resample_weights(groups[::-1], 64, seed=5)), axis=1)
    np.testing.assert_array_equal(whole, backwards[::-1])
    monkeypatch.setattr("lentigo.evaluation.metrics._CELLS_PER_CHUNK", 300)
    chunks = list(resample_weights(groups, 64, seed=5))
    assert len(chunks) > 1
    np.testing.assert_array_equal(whole, np.concatenate(chunks, axis=1))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        labels = np.zeros(80, dtype=np.int64)
        right = np.random.default_rng(seed).random(80) < 0.7
        probs = np.eye(7)[np.where(right, 0, 1)]
        found = estimate(labels, probs, [str(i) for i in range(80)], resamples=300, seed=seed)
        accuracy = found.overall["accuracy"]
        hits += accuracy.ci_low <= 0.7 <= accuracy.ci_high
    assert hits >= 51


def test_lesions_with_many_images_widen_the_interval():
    labels, probs = make(12, 100)
    labels, probs = np.repeat(labels, 5), np.repeat(probs, 5, axis=0)
    width = {}
    for name, groups in {"image": np.arange(500), "lesion": np.repeat(np.arange(100), 5)}.items():
        accuracy = estimate(labels, probs, groups.astype(str), resamples=500).overall["accuracy"]
        width[name] = accuracy.ci_high - accuracy.ci_low
    assert width["lesion"] > 1.8 * width["image"]


def test_same_seed_same_intervals():
    labels, probs = make(13, 90)
    groups = repeated_groups(90, 60)
    first, second, other = (estimate(labels, probs, groups, resamples=100, seed=s) for s in (4, 4, 5))
    assert first.overall == second.overall
    assert first.overall != other.overall


def test_undefined_is_none_with_its_n():
    labels, probs = make(14, 30, present=(5,))
    found = estimate(labels, probs, [str(i) for i in range(30)], resamples=50)
    assert found.per_class["recall"][3] == Estimate(None, None, None, 0)
    assert found.per_class["auc"][5] == Estimate(None, None, None, 0)
    assert found.overall["macro_auc"] == Estimate(None, None, None, 30)
    assert found.overall["accuracy"].n == 30


def test_one_image_has_values_but_no_interval():
    found = estimate(np.array([4]), np.eye(7)[[4]], ["a"], resamples=50)
    assert found.overall["accuracy"] == Estimate(1.0, None, None, 1)
    assert found.per_class["recall"][4] == Estimate(1.0, None, None, 1)


def test_all_resamples_agreeing_is_no_interval():
    labels = np.arange(7).repeat(4)
    found = estimate(labels, np.eye(7)[labels], [str(i) for i in range(28)], resamples=50)
    assert found.overall["accuracy"] == Estimate(1.0, None, None, 28)


def test_no_images_at_all():
    found = estimate(np.zeros(0, dtype=np.int64), np.zeros((0, 7)), [], resamples=10)
    assert all(one == Estimate(None, None, None, 0) for one in found.overall.values())


def test_the_rarer_side_is_the_positive_one_where_both_are_equal():
    for positive, expected in (([1, 0, 0], [1, 0, 0]), ([1, 1, 0], [0, 0, 1]), ([1, 0], [1, 0]), ([], [])):
        np.testing.assert_array_equal(rarer_side(np.array(positive, dtype=bool)), np.array(expected, dtype=bool))


def test_percentiles_leave_undefined_resamples_out():
    low, high = percentile_interval(np.array([np.nan, *np.linspace(0.0, 1.0, 41)]))
    assert (low, high) == pytest.approx((0.025, 0.975))


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        (np.array([0, 1]), np.full((1, 7), 1 / 7), "expected labels"),
        (np.array([7]), np.full((1, 7), 1 / 7), "0..6"),
        (np.array([0]), np.full((1, 7), 0.5), "sum to 1"),
        (np.array([0]), np.full((1, 7), np.nan), "sum to 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels, probs, message):
    with pytest.raises(DataError, match=message):
        estimate(labels, probs, ["a"] * len(labels))


def test_2000_resamples_of_1000_images_take_seconds_at_most():
    labels, probs = make(15, 1000)
    start = time.perf_counter()
    estimate(labels, probs, repeated_groups(1000, 800))
    assert time.perf_counter() - start < 5.0
