"""Prediction sets against crepes, their promise by simulation, and classes with too few lesions."""

from __future__ import annotations

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.evaluation.conformal import ConformalSets, fit_sets, judge_sets, round_up

RARE = 3


def draw(seed, count, mix=None, skill=1.5, decimals=None):
    """Labels and probabilities; class RARE is harder than the others, few decimals make ties."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(7, count, p=mix).astype(np.int64)
    logits = generator.normal(size=(count, 7))
    logits[np.arange(count), labels] += np.where(labels == RARE, 0.0, skill)
    if decimals is not None:
        logits = np.round(logits, decimals)
    exponentials = np.exp(logits)
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


def each_its_own(labels):
    return np.arange(len(labels)).astype(str)


def crepes_p_values(labels, probs, new_probs, kind):
    """Unsmoothed p-values (M, 7), for the class-conditional kind one Mondrian category a class."""
    scores = 1.0 - probs[np.arange(len(labels)), labels]
    if kind == "marginal":
        return ConformalClassifier().fit(scores).predict_p(1.0 - new_probs, smoothing=False)
    columns = []
    for c in range(7):
        classifier = ConformalClassifier().fit(scores, bins=labels)
        bins = np.full(len(new_probs), c)
        columns.append(classifier.predict_p(1.0 - new_probs[:, [c]], bins=bins, smoothing=False)[:, 0])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("kind", ["marginal", "class_conditional"])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.37])
@pytest.mark.parametrize("decimals", [None, 0])
def test_sets_agree_with_crepes(kind, alpha, decimals):
    labels, probs = draw(1, 120, decimals=decimals)
    _, new_probs = draw(2, 60, decimals=decimals)
    if decimals is None:
        new_probs[:20] = probs[:20]  # scores that equal those of calibration lesions
    sets = fit_sets(labels, probs, each_its_own(labels), kind=kind, alpha=alpha).sets(new_probs)
    # crepes takes p >= alpha; p > alpha keeps the promise with smaller sets, so p = alpha is left out here.
    p_values = crepes_p_values(labels, probs, new_probs, kind)
    np.testing.assert_array_equal(sets, p_values > alpha + 1e-12)


def test_sets_are_those_that_crepes_prints_where_no_p_value_equals_alpha():
    labels, probs = draw(3, 100)
    _, new_probs = draw(4, 50)
    scores = 1.0 - probs[np.arange(100), labels]
    expected = ConformalClassifier().fit(scores).predict_set(1.0 - new_probs, confidence=0.85, smoothing=False)
    sets = fit_sets(labels, probs, each_its_own(labels), kind="marginal", alpha=0.15).sets(new_probs)
    np.testing.assert_array_equal(sets, expected.astype(bool))


@pytest.mark.parametrize("kind", ["marginal", "class_conditional"])
def test_coverage_is_as_promised_over_many_draws(kind):
    """The mean over draws lies between 1 - alpha and 1 - alpha + 1/(n + 1)."""
    alpha, hits = 0.1, []
    for seed in range(400):
        labels, probs = draw(seed, 7 * 20 + 60)
        known = slice(0, 140)
        sets = fit_sets(labels[known], probs[known], each_its_own(labels[known]), kind=kind, alpha=alpha)
        new, truth = sets.sets(probs[140:]), labels[140:]
        hits.append(new[np.arange(60), truth].mean())
    error = 3.0 * np.std(hits) / np.sqrt(len(hits))
    slack = 1.0 / 141 if kind == "marginal" else 1.0 / 15
    assert 1.0 - alpha - error <= np.mean(hits) <= 1.0 - alpha + slack + error


def test_only_class_conditional_sets_keep_the_promise_for_a_hard_rare_class_and_another_mix():
    mix = np.full(7, 0.95 / 6)
    mix[RARE] = 0.05
    labels, probs = draw(5, 6000, mix)
    truth, new_probs = draw(6, 6000)
    rows = np.arange(6000)
    coverage = {}
    for kind in ("marginal", "class_conditional"):
        hit = fit_sets(labels, probs, each_its_own(labels), kind=kind).sets(new_probs)[rows, truth]
        coverage[kind] = (hit.mean(), hit[truth == RARE].mean())
    assert coverage["class_conditional"] == pytest.approx((0.9, 0.9), abs=0.04)
    assert coverage["marginal"][1] < 0.8
    assert coverage["marginal"][0] < coverage["class_conditional"][0]


@pytest.mark.parametrize(("alpha", "least"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.5, 1)])
def test_classes_with_too_few_lesions_are_in_every_set(alpha, least):
    labels = np.repeat([0, 1], [least - 1, least])
    probs = np.tile([0.4, 0.3, 0.1, 0.05, 0.05, 0.05, 0.05], (len(labels), 1))
    found = fit_sets(labels, probs, each_its_own(labels), alpha=alpha)
    assert found.least_n == least
    assert found.thresholds == (0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert found.n == (least - 1, least, 0, 0, 0, 0, 0)
    assert found.always_included == tuple(code for c, code in enumerate(CLASS_CODES) if c != 1)
    assert found.sets(np.array([[1.0, 0, 0, 0, 0, 0, 0]])).tolist() == [[True, False, *[True] * 5]]


def test_no_lesions_at_all_means_every_class():
    found = fit_sets(np.zeros(0, dtype=np.int64), np.zeros((0, 7)), [], kind="marginal")
    assert found.sets(np.full((2, 7), 1 / 7)).all()


def test_a_lesion_counts_once_with_its_worst_image():
    labels, probs = draw(7, 60)
    lesions = each_its_own(labels)
    better = probs.copy()
    better[np.arange(60), labels] += 1.0
    better /= better.sum(axis=1, keepdims=True)
    twice = (np.tile(labels, 2), np.concatenate([better, probs]), np.tile(lesions, 2))
    assert fit_sets(*twice) == fit_sets(labels, probs, lesions)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.02, 0.9))
def test_lesions_of_the_calibration_are_covered_themselves_and_smaller_alpha_gives_larger_sets(seed, alpha):
    labels, probs = draw(seed, 80, decimals=1)
    lesions = each_its_own(labels)
    for kind in ("marginal", "class_conditional"):
        sets = fit_sets(labels, probs, lesions, kind=kind, alpha=alpha).sets(probs)
        assert sets[np.arange(80), labels].mean() >= 1.0 - alpha
        assert (sets <= fit_sets(labels, probs, lesions, kind=kind, alpha=alpha / 2).sets(probs)).all()


def test_fitted_sets_come_back_from_json():
    found = fit_sets(*draw(8, 90), each_its_own(range(90)))
    assert ConformalSets.model_validate_json(found.model_dump_json()) == found


def test_judgement_counts_by_hand():
    labels = np.array([0, 0, 1, 5])
    sets = np.zeros((4, 7), dtype=bool)
    sets[0, 0] = sets[1, [0, 1, 5]] = sets[2, 0] = True  # right alone, right of three, wrong alone, empty
    found = judge_sets(labels, sets, ["a", "b", "c", "d"], resamples=200)
    assert (found.coverage.value, found.coverage.n) == (0.5, 4)
    per_class = [found.coverage_per_class[CLASS_CODES[c]] for c in (0, 1, 5, 6)]
    assert [(one.value, one.n) for one in per_class] == [(1.0, 2), (0.0, 1), (0.0, 1), (None, 0)]
    assert found.coverage_per_class[CLASS_CODES[0]].ci_low == pytest.approx(0.3424, abs=1e-4)  # Wilson, 2 of 2
    assert found.mean_size.value == 1.25
    assert [one.value for one in found.size_shares] == [0.25, 0.5, 0.0, 0.25, 0.0, 0.0, 0.0, 0.0]
    assert (found.single_accuracy.value, found.single_accuracy.n) == (0.5, 2)
    assert (found.n_images, found.n_lesions) == (4, 4)


def test_lesions_with_several_images_widen_the_interval_of_coverage():
    labels = np.repeat(np.random.default_rng(0).integers(7, size=40), 5)
    sets = np.zeros((200, 7), dtype=bool)
    sets[np.arange(200), labels] = np.repeat(np.arange(40) % 4 > 0, 5)
    alone, together = (
        judge_sets(labels, sets, groups.astype(str), resamples=300).coverage
        for groups in (np.arange(200), np.repeat(np.arange(40), 5))
    )
    assert together.ci_high - together.ci_low > 1.7 * (alone.ci_high - alone.ci_low)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_levels_are_refused(alpha):
    with pytest.raises(ConfigError, match="alpha between 0 and 1"):
        fit_sets(*draw(9, 10), each_its_own(range(10)), alpha=alpha)


def test_logits_are_refused():
    with pytest.raises(DataError, match="sum to 1"):
        fit_sets(np.array([0]), np.ones((1, 7)), ["a"])


def test_rounding_up_is_exact_for_tenths():
    for n in range(1, 300):
        assert round_up((n + 1) * (1.0 - 0.1)) == -(-(n + 1) * 9 // 10)
