"""The abstain rule: its promise by simulation, its choice by hand, and what it must not hide."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from lentigo.core.errors import ConfigError
from lentigo.core.taxonomy import CLASS_CODES, MALIGNANT_LABELS
from lentigo.evaluation.selective import AbstainRule, error_bound, fit_rule, judge_rule

BENIGN = next(c for c in range(7) if c not in MALIGNANT_LABELS)
MALIGNANT = MALIGNANT_LABELS[0]


def honest(seed, count, low=0.5):
    """Confidences between `low` and 1 that are right as often as they say, and lesion ids."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(low, 1.0, count)
    return generator.random(count) < confidence, confidence, np.arange(count).astype(str)


def fit(right, confidence, groups, sizes=None, **settings):
    sizes = np.ones(len(right), dtype=np.int64) if sizes is None else sizes
    return fit_rule(right, confidence, sizes, groups, **settings)


@pytest.mark.parametrize(("wrong", "count"), [(0, 1), (0, 29), (1, 1), (3, 40), (40, 40), (17, 1000)])
def test_bound_agrees_with_scipys_exact_test(wrong, count):
    expected = binomtest(wrong, count, alternative="less").proportion_ci(0.95, method="exact").high
    assert error_bound(wrong, count) == pytest.approx(expected, abs=1e-12)


def test_the_promise_is_broken_in_one_of_twenty_draws_at_most():
    """True error of a limit L is 1 - (1 + L) / 2, known here; the chosen one may exceed 0.1 in 5% of draws."""
    broken, chosen = 0, 0
    for seed in range(400):
        rule = fit(*honest(seed, 500, low=0.6), max_error=0.1)
        chosen += rule.limit is not None
        broken += rule.limit is not None and 1.0 - (1.0 + rule.limit) / 2.0 > 0.1
    assert chosen > 200
    assert broken <= 0.05 * 400 + 3.0 * np.sqrt(400 * 0.05 * 0.95)


def test_the_loosest_limit_before_the_first_failure_is_chosen():
    right, confidence, groups = honest(1, 600)
    rule = fit(right, confidence, groups, max_error=0.15)
    order = np.argsort(-confidence)
    # 19 lesions can pass at 15%; four times as many are asked for first: 90 at steps of 30.
    bounds = {count: error_bound(int((~right[order[:count]]).sum()), count) for count in range(90, 601, 30)}
    first_failure = next(count for count, bound in bounds.items() if bound > 0.15)
    assert 90 < first_failure < 600
    accepted = order[: first_failure - 30]
    assert rule.limit == confidence[accepted[-1]]
    assert (rule.n, rule.error) == (len(accepted), pytest.approx((~right[accepted]).mean()))
    assert rule.error <= rule.error_bound <= 0.15
    np.testing.assert_array_equal(np.flatnonzero(rule.accepts(confidence, np.ones(600))), np.sort(accepted))


def test_a_faultless_model_answers_all_and_a_stricter_target_answers_less():
    right, confidence, groups = honest(2, 500, low=0.6)
    everyone = fit(np.ones(500, dtype=bool), confidence, groups)
    assert everyone.limit == confidence.min()
    limits = [fit(right, confidence, groups, max_error=level).limit for level in (0.3, 0.2, 0.15)]
    assert limits == sorted(limits)


@pytest.mark.parametrize(
    ("count", "right_share", "words"),
    [(0, 1, "no limit accepts 29"), (28, 1, "no limit accepts 29"), (300, 0, "the strictest")],
)
def test_without_a_rule_nothing_is_accepted_and_the_reason_is_given(count, right_share, words):
    _, confidence, groups = honest(3, count)
    rule = fit(np.full(count, bool(right_share)), confidence, groups)
    assert (rule.limit, rule.n, rule.error, rule.error_bound) == (None, 0, None, None)
    assert words in rule.reason
    assert not rule.accepts(np.ones(5), np.ones(5)).any()


def test_29_lesions_without_an_error_are_enough_for_ten_percent():
    _, confidence, groups = honest(4, 29)
    assert fit(np.ones(29, dtype=bool), confidence, groups).limit == confidence.min()


def test_repeated_images_of_a_lesion_are_no_more_evidence():
    """28 lesions stay too few however many images they have; a lesion is wrong if one answer is."""
    _, confidence, _ = honest(5, 280)
    assert fit(np.ones(280, dtype=bool), confidence, np.arange(280).astype(str)).limit is not None
    assert fit(np.ones(280, dtype=bool), confidence, (np.arange(280) % 28).astype(str)).limit is None
    right = np.ones(200, dtype=bool)
    right[0] = False
    rule = fit(right, np.ones(200), (np.arange(200) // 2).astype(str))
    assert (rule.n, rule.error) == (100, 0.01)


def test_set_sizes_choose_the_largest_size_that_keeps_the_promise():
    sizes = np.repeat([0, 1, 2, 3], [50, 200, 200, 200])
    right = np.ones(650, dtype=bool)
    right[:50] = False  # empty sets are never accepted
    right[450:] = False
    rule = fit(right, np.full(650, 0.5), np.arange(650).astype(str), sizes, kind="set_size")
    assert (rule.limit, rule.n, rule.error) == (2, 400, 0.0)
    np.testing.assert_array_equal(rule.accepts(np.zeros(4), np.array([0, 1, 2, 3])), [False, True, True, False])


def test_equal_confidences_are_accepted_together():
    right, _, groups = honest(6, 100)
    rule = fit(np.ones(100, dtype=bool), np.full(100, 0.7), groups)
    assert (rule.limit, rule.n) == (0.7, 100)
    assert fit(right, np.full(100, 0.7), groups).limit is None


def test_a_rule_comes_back_from_json():
    rule = fit(*honest(7, 400), max_error=0.2)
    assert AbstainRule.model_validate_json(rule.model_dump_json()) == rule


@pytest.mark.parametrize("max_error", [0.0, 1.0, float("nan")])
def test_impossible_targets_are_refused(max_error):
    with pytest.raises(ConfigError, match="max_error between 0 and 1"):
        fit(*honest(8, 10), max_error=max_error)


def test_judgement_shows_the_malignant_images_that_are_answered_as_benign():
    labels = np.array([MALIGNANT] * 4 + [BENIGN] * 6)
    answers = np.array([MALIGNANT, BENIGN, BENIGN, MALIGNANT_LABELS[1], *[BENIGN] * 5, MALIGNANT])
    accepted = np.array([True, True, False, True, *[True] * 4, False, False])
    found = judge_rule(labels, answers, accepted, np.arange(10).astype(str), kind="confidence")
    assert (found.accepted.value, found.accepted.n) == (0.7, 10)
    assert (found.error.value, found.error.n) == (pytest.approx(2 / 7), 7)
    assert (found.error_without.value, found.error_without.n) == (0.4, 10)
    assert (found.malignant_as_benign.value, found.malignant_as_benign.n) == (0.25, 4)
    assert found.malignant_as_benign_without.value == 0.5
    code, other = CLASS_CODES[MALIGNANT], CLASS_CODES[BENIGN]
    assert (found.accepted_per_class[code].value, found.error_per_class[code].value) == (0.75, pytest.approx(2 / 3))
    assert (found.accepted_per_class[other].n, found.error_per_class[other].value) == (6, 0.0)
    assert found.error.ci_low is not None


def test_nothing_accepted_is_an_undefined_error():
    labels = np.array([MALIGNANT, BENIGN])
    found = judge_rule(labels, labels, np.zeros(2, dtype=bool), ["a", "b"], kind="set_size")
    assert (found.accepted.value, found.error.value, found.error.n) == (0.0, None, 0)
    absent = CLASS_CODES[MALIGNANT_LABELS[-1]]
    assert (found.accepted_per_class[absent].value, found.accepted_per_class[absent].n) == (None, 0)
