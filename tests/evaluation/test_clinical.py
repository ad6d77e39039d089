"""Clinical scores against scikit-learn, scipy and brute force, and everything that is undefined."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.taxonomy import CLASS_CODES, MALIGNANT_LABELS, parse_label
from lentigo.evaluation import curves
from lentigo.evaluation.clinical import (
    COVERAGES,
    DECISION_THRESHOLDS,
    GOALS,
    SAME_IMAGES,
    judge_clinically,
    judge_reliability,
    own_thresholds,
    threshold_name,
)
from lentigo.evaluation.clinical_results import ClinicalJudgement
from lentigo.evaluation.intervals import bootstrap, proportions, wilson_estimate, wilson_interval
from lentigo.evaluation.metrics import Estimate, resample_weights
from lentigo.evaluation.reliability import brier_scores, calibration_errors, equal_mass_bins, error_by_chance

TOLERANCE = 1e-12
MELANOMA = parse_label("melanoma")


def make(seed, count, present=range(7), skill=1.5):
    generator = np.random.default_rng(seed)
    labels = generator.choice(np.asarray(list(present)), count).astype(np.int64)
    logits = generator.normal(size=(count, 7))
    logits[np.arange(count), labels] += skill
    exponentials = np.exp(logits)
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


def own_lesions(count):
    return np.arange(count).astype(str)


def once(count):
    return np.ones((count, 1))


@st.composite
def weighted_scores(draw, least=2):
    """Positives, scores with many ties, whole weights."""
    count = draw(st.integers(least, 25))
    few = st.integers(0, 4)
    scores = np.array(draw(st.lists(few, min_size=count, max_size=count)), dtype=np.float64) / 4
    weights = np.array(draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)), dtype=np.float64)
    positive = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    return positive, scores, weights


# Wilson and proportions


@pytest.mark.parametrize(
    ("hits", "n"), [(0, 1), (1, 1), (0, 15), (15, 15), (7, 15), (29, 36), (670, 1000), (1, 100000)]
)
def test_wilson_agrees_with_scipy(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson_interval(hits, n) == pytest.approx((expected.low, expected.high), abs=TOLERANCE)


def test_wilson_of_nothing_and_of_more_than_all():
    assert wilson_estimate(0, 0) == Estimate(None, None, None, 0)
    with pytest.raises(DataError, match=r"0\.\.3"):
        wilson_interval(4, 3)


def test_proportions_are_wilsons_where_each_case_is_of_another_lesion():
    hits = np.array([True, True, False, True, False, True])
    cases = {"one each": np.array([1, 1, 1, 0, 0, 0], dtype=bool), "two of c": np.array([0, 0, 1, 1, 1, 1], dtype=bool)}
    groups = ["a", "b", "c", "c", "d", "e"]
    found = proportions({name: (hits, rows) for name, rows in cases.items()}, groups, resamples=400, seed=1)
    assert found["one each"] == wilson_estimate(2, 3)
    weights = np.concatenate(list(resample_weights(groups, 400, 1)), axis=1)
    rows = cases["two of c"]
    with np.errstate(invalid="ignore"):
        shares = (weights[rows] * hits[rows, None]).sum(axis=0) / weights[rows].sum(axis=0)
    assert found["two of c"].value == 0.5
    expected = np.nanpercentile(shares, [2.5, 97.5])
    assert (found["two of c"].ci_low, found["two of c"].ci_high) == pytest.approx(tuple(expected))


def test_centred_interval_holds_the_value():
    noise = np.random.default_rng(0).normal(size=60)
    found = bootstrap(lambda w: {"size": np.abs(w.T @ noise) / w.sum(axis=0)}, own_lesions(60), resamples=400)
    rows = np.ones(60, dtype=bool)
    plain, centred = found.estimate("size", rows), found.estimate("size", rows, centred=True)
    assert centred.value == plain.value
    assert 0.0 <= centred.ci_low <= centred.value <= centred.ci_high < plain.ci_high


# Curves


@settings(max_examples=80, deadline=None)
@given(weighted_scores())
def test_average_precision_agrees_with_scikit_learn(case):
    positive, scores, weights = case
    found = curves.average_precision(curves.counts_above(positive, scores, weights[:, None]))[0]
    if weights[positive].sum() == 0:
        assert np.isnan(found)
    else:
        expected = oracle.average_precision_score(positive, scores, sample_weight=weights)
        assert found == pytest.approx(expected, abs=TOLERANCE)


@settings(max_examples=80, deadline=None)
@given(weighted_scores(), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_best_points_agree_with_the_roc_curve(case, level):
    positive, scores, weights = case
    counts = curves.counts_above(positive, scores, weights[:, None])
    sensitivity = curves.sensitivity_at_specificity(counts, level)[0]
    specificity = curves.specificity_at_sensitivity(counts, level)[0]
    if not weights[positive].sum() or not weights[~positive].sum():
        assert np.isnan([sensitivity, specificity]).all()
        return
    best = [0.0, 0.0]
    for threshold in [*np.unique(scores), 2.0]:
        called = scores >= threshold
        one = weights[called & positive].sum() / weights[positive].sum()
        other = weights[~called & ~positive].sum() / weights[~positive].sum()
        best[0] = max(best[0], one) if other >= level else best[0]
        best[1] = max(best[1], other) if one >= level else best[1]
    assert (sensitivity, specificity) == pytest.approx(tuple(best), abs=TOLERANCE)


@settings(max_examples=60, deadline=None)
@given(weighted_scores(), st.sampled_from([0.8, 0.9, 0.95]))
def test_thresholds_reach_their_goal_on_the_same_images(case, level):
    positive, scores, _ = case
    counts = curves.counts_above(positive, scores, once(len(scores)))
    low, high = curves.threshold_at_specificity(counts, level), curves.threshold_at_sensitivity(counts, level)
    if positive.all() or not positive.any():
        assert low is high is None
        return
    assert (~(scores[~positive] >= low)).mean() >= level
    assert (scores[positive] >= low).mean() == curves.sensitivity_at_specificity(counts, level)[0]
    assert (scores[positive] >= high).mean() >= level
    assert (~(scores[~positive] >= high)).mean() == curves.specificity_at_sensitivity(counts, level)[0]


def test_a_specificity_that_no_score_reaches_calls_none():
    positive, scores = np.array([True, False, False]), np.array([0.5, 0.9, 0.9])
    threshold = curves.threshold_at_specificity(curves.counts_above(positive, scores, once(3)), 0.9)
    assert threshold > 0.9
    assert not (scores >= threshold).any()


def test_roc_and_precision_recall_points_are_scikit_learns():
    labels, probs = make(1, 80)
    positive, scores = labels == 5, probs[:, 5]
    x, y = curves.roc_points(positive, scores)
    false_positives, hits, _ = oracle.roc_curve(positive, scores, drop_intermediate=False)
    assert set(zip(x, y, strict=True)) <= set(zip(false_positives, hits, strict=True))
    assert (x[0], y[0], x[-1], y[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.trapezoid(y, x) == pytest.approx(oracle.roc_auc_score(positive, scores), abs=TOLERANCE)
    recall, precision = curves.precision_recall_points(positive, scores)
    steps = np.diff(recall, prepend=0.0) @ precision
    assert steps == pytest.approx(oracle.average_precision_score(positive, scores), abs=TOLERANCE)


def test_long_curves_are_thinned_evenly():
    labels, probs = make(2, 5000)
    positive, scores = labels == 5, probs[:, 5]
    x, y = curves.roc_points(positive, scores)
    assert len(x) <= curves.CURVE_POINTS
    assert (x[0], y[0], x[-1], y[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.trapezoid(y, x) == pytest.approx(oracle.roc_auc_score(positive, scores), abs=0.001)


def test_net_benefit_by_counting():
    labels, probs = make(3, 70)
    positive, scores = np.isin(labels, MALIGNANT_LABELS), probs[:, list(MALIGNANT_LABELS)].sum(axis=1)
    weights = np.random.default_rng(0).integers(0, 3, (70, 4)).astype(np.float64)
    model, every = curves.net_benefit(positive, scores, weights, np.array([0.1, 0.4]))
    for b in range(4):
        rows = np.repeat(np.arange(70), weights[:, b].astype(int))
        for k, t in enumerate((0.1, 0.4)):
            called, true = scores[rows] >= t, positive[rows]
            expected = ((called & true).sum() - (called & ~true).sum() * t / (1 - t)) / len(rows)
            assert model[b, k] == pytest.approx(expected, abs=TOLERANCE)
            assert every[b, k] == pytest.approx(true.mean() - (1 - true.mean()) * t / (1 - t), abs=TOLERANCE)


@settings(max_examples=60, deadline=None)
@given(weighted_scores(least=1))
def test_risk_and_its_area_by_counting(case):
    """Over all orders of equal confidences the expected number of wrong ones grows evenly within a tie."""
    right, confidence, weights = case
    rows = np.repeat(np.arange(len(right)), weights.astype(int))
    area = curves.area_under_risk_coverage(right, confidence, weights[:, None])[0]
    found = curves.risk_at_coverage(right, confidence, weights[:, None], np.array([0.5, 1.0]))[0]
    if not len(rows):
        assert np.isnan([area, *found]).all()
        return
    confidence, wrong = confidence[rows], ~right[rows]
    order = np.argsort(-confidence, kind="stable")
    rate = np.array([wrong[confidence == value].mean() for value in confidence])[order]
    risks = np.cumsum(rate) / np.arange(1, len(rows) + 1)
    assert area == pytest.approx(risks.mean(), abs=TOLERANCE)
    assert found[1] == pytest.approx(wrong.mean(), abs=TOLERANCE)
    if len(rows) % 2 == 0:
        assert found[0] == pytest.approx(risks[len(rows) // 2 - 1], abs=TOLERANCE)


def test_risk_coverage_at_every_limit():
    right = np.array([True, False, True, True])
    found = curves.risk_coverage(right, np.array([0.5, 0.5, 0.9, 0.2]))
    assert found.limits.tolist() == [0.9, 0.5, 0.2]
    assert found.coverage.tolist() == [0.25, 0.75, 1.0]
    assert found.risk.tolist() == [0.0, 1 / 3, 0.25]


# Reliability


def test_brier_agrees_with_scikit_learn():
    labels, probs = make(4, 90)
    expected = oracle.brier_score_loss(labels, probs, labels=range(7), scale_by_half=False)
    assert brier_scores(labels, probs).mean() == pytest.approx(expected, abs=TOLERANCE)


def test_reliability_bins_agree_with_scikit_learn():
    labels, probs = make(5, 300)
    found = judge_clinically(labels, probs, own_lesions(300), resamples=20).reliability
    right, confidence = probs.argmax(axis=1) == labels, probs.max(axis=1)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    assert [one.accuracy.value for one in found.bins] == pytest.approx(accuracy.tolist())
    assert [one.mean_confidence for one in found.bins] == pytest.approx(mean.tolist())
    assert found.bins[0].accuracy == wilson_estimate(round(accuracy[0] * 20), 20)
    assert found.ece.value == pytest.approx(np.abs(accuracy - mean).mean(), abs=TOLERANCE)
    assert found.ece.ci_low <= found.ece.value <= found.ece.ci_high


def test_calibration_error_has_an_interval_that_holds_it():
    """Of calibrated answers, whose resamples alone would all lie above the value."""
    generator = np.random.default_rng(8)
    probs = generator.dirichlet(np.ones(7), 100)
    labels = np.array([generator.choice(7, p=row) for row in probs])
    right, confidence = probs.argmax(axis=1) == labels, probs.max(axis=1)
    bins = equal_mass_bins(confidence)
    drawn = bootstrap(
        lambda weights: {"ece": calibration_errors(right, confidence, bins, weights)}, own_lesions(100), resamples=200
    )
    plain = drawn.estimate("ece", np.ones(100, dtype=bool))
    assert plain.ci_low > plain.value
    found = judge_reliability(labels, probs, own_lesions(100), resamples=200).ece
    assert found.value == plain.value
    assert found.ci_low <= found.value <= found.ci_high


def test_bins_never_part_equal_confidences_and_are_never_empty():
    confidence = np.array([0.3] * 40 + [0.6] * 5 + list(np.linspace(0.7, 0.9, 15)))
    bins = equal_mass_bins(confidence)
    assert set(bins) == set(range(bins.max() + 1))
    for value in (0.3, 0.6):
        assert len(set(bins[confidence == value])) == 1
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_array_equal(equal_mass_bins(confidence[order]), bins[order])
    assert equal_mass_bins(np.full(20, 0.5)).tolist() == [0] * 20
    assert sorted(np.bincount(equal_mass_bins(np.linspace(0.1, 1, 47)))) == [3] * 13 + [4] * 2


def test_calibration_error_by_chance_is_that_of_calibrated_answers():
    generator = np.random.default_rng(6)
    confidence = generator.uniform(0.3, 1.0, 600)
    bins = equal_mass_bins(confidence)
    errors = [
        calibration_errors(generator.random(600) < confidence, confidence, bins, once(600))[0] for _ in range(300)
    ]
    assert error_by_chance(confidence, bins) == pytest.approx(np.mean(errors), rel=0.05)
    assert error_by_chance(np.ones(5), np.zeros(5, dtype=np.int64)) == 0.0


# All together


def test_classes_and_questions_agree_with_scikit_learn():
    labels, probs = make(7, 250)
    found = judge_clinically(labels, probs, own_lesions(250), resamples=50)
    answers = probs.argmax(axis=1)
    for c, code in enumerate(CLASS_CODES):
        (tn, fp), (fn, tp) = oracle.confusion_matrix(labels == c, answers == c)
        one = found.per_class[code]
        assert one.sensitivity == wilson_estimate(tp, tp + fn)
        assert one.specificity == wilson_estimate(tn, tn + fp)
        assert one.ppv == wilson_estimate(tp, tp + fp)
        assert one.npv == wilson_estimate(tn, tn + fn)
        expected = oracle.average_precision_score(labels == c, probs[:, c])
        assert one.average_precision.value == pytest.approx(expected, abs=TOLERANCE)
        assert one.average_precision.n == one.n == tp + fn
    scores = {"malignant": probs[:, list(MALIGNANT_LABELS)].sum(axis=1), "melanoma": probs[:, MELANOMA]}
    truth = {"malignant": np.isin(labels, MALIGNANT_LABELS), "melanoma": labels == MELANOMA}
    for name, question in found.questions.items():
        assert question.auc.value == pytest.approx(oracle.roc_auc_score(truth[name], scores[name]), abs=TOLERANCE)
        expected = oracle.brier_score_loss(truth[name], scores[name])
        assert question.brier.value == pytest.approx(expected, abs=TOLERANCE)
        assert question.auc.ci_low < question.auc.value < question.auc.ci_high
    assert found.risk_coverage[-1].risk.value == pytest.approx((answers != labels).mean())
    assert [one.coverage for one in found.risk_coverage] == COVERAGES.tolist()
    assert [one.threshold for one in found.decision_curve] == DECISION_THRESHOLDS.tolist()
    assert found.decision_curve[0].act_on_none == 0.0


def test_frozen_thresholds_are_used_as_they_are():
    labels, probs = make(8, 200)
    fitted = own_thresholds(*make(9, 300))
    found = judge_clinically(labels, probs, own_lesions(200), thresholds=fitted, resamples=20)
    assert found.thresholds_from == "val"
    positive, scores = labels == MELANOMA, probs[:, MELANOMA]
    for goal, level in GOALS:
        point = found.questions["melanoma"].operating_points[f"{goal}_{level * 100:.0f}"]
        assert point.threshold == fitted[threshold_name("melanoma", goal, level)]
        called = scores >= point.threshold
        assert point.sensitivity == wilson_estimate(int(called[positive].sum()), int(positive.sum()))
        assert point.specificity == wilson_estimate(int((~called)[~positive].sum()), int((~positive).sum()))
        assert point.ppv == wilson_estimate(int(positive[called].sum()), int(called.sum()))


def test_without_thresholds_those_of_the_same_images_are_said_to_be_so():
    labels, probs = make(10, 200)
    found = judge_clinically(labels, probs, own_lesions(200), resamples=20)
    assert found.thresholds_from == SAME_IMAGES
    for question in found.questions.values():
        for name, point in question.operating_points.items():
            reached = point.specificity if point.goal == "specificity" else point.sensitivity
            best = point.sensitivity if point.goal == "specificity" else point.specificity
            assert reached.value >= point.level
            assert best.value == pytest.approx(question.best_at[name].value, abs=TOLERANCE)


def test_a_threshold_that_is_missing_has_no_point_and_a_wrong_name_is_refused():
    labels, probs = make(11, 60)
    given = {"malignant_specificity_90": 0.4, "melanoma_specificity_90": None}
    found = judge_clinically(labels, probs, own_lesions(60), thresholds=given, resamples=20)
    assert found.questions["malignant"].operating_points["specificity_90"].sensitivity.value is not None
    for name in ("specificity_90", "sensitivity_95"):
        point = found.questions["melanoma"].operating_points[name]
        assert point.threshold is None
        assert point.sensitivity.value is None
    with pytest.raises(ConfigError, match="melanoma_90"):
        judge_clinically(labels, probs, own_lesions(60), thresholds={"melanoma_90": 0.5})


def test_bootstrap_intervals_equal_naive_ones():
    labels, probs = make(12, 60, present=(0, 4, 5))
    groups = np.random.default_rng(0).integers(40, size=60).astype(str)
    found = judge_clinically(labels, probs, groups, resamples=60, seed=2)
    assert found.n_lesions == len(set(groups))
    weights = np.concatenate(list(resample_weights(groups, 60, 2)), axis=1)
    samples = {"ap": [], "sensitivity": []}
    for b in range(60):
        rows = np.repeat(np.arange(60), weights[:, b].astype(int))
        samples["ap"].append(oracle.average_precision_score(labels[rows] == 5, probs[rows, 5]))
        samples["sensitivity"].append((probs[rows].argmax(axis=1) == 5)[labels[rows] == 5].mean())
    one = found.per_class["nv"]
    for estimate, drawn in ((one.average_precision, samples["ap"]), (one.sensitivity, samples["sensitivity"])):
        assert (estimate.ci_low, estimate.ci_high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))


@pytest.mark.parametrize("present", [(5,), (0, 1, 4), (0, 1, 2, 3, 5, 6)])
def test_absent_classes_are_undefined_with_their_n(present):
    labels, probs = make(13, 40, present=present)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = judge_clinically(labels, probs, own_lesions(40), resamples=30)
    for c, code in enumerate(CLASS_CODES):
        if c not in present:
            assert found.per_class[code].sensitivity == Estimate(None, None, None, 0)
            assert found.per_class[code].average_precision == Estimate(None, None, None, 0)
    malignant = found.questions["malignant"]
    if present != (0, 1, 2, 3, 5, 6):
        assert malignant.auc == Estimate(None, None, None, 0)
        assert all(point.threshold is None for point in malignant.operating_points.values())
        assert all(one == Estimate(None, None, None, 0) for one in malignant.best_at.values())
    assert found.questions["melanoma"].n_positive == int((labels == MELANOMA).sum())


def test_one_image_and_no_images():
    labels, probs = make(14, 1)
    one = judge_clinically(labels, probs, ["a"], resamples=20)
    assert one.reliability.brier.ci_low is None
    assert one.aurc.n == 1
    none = judge_clinically(labels[:0], probs[:0], [], resamples=20)
    assert none.reliability is None
    assert none.aurc == Estimate(None, None, None, 0)


def test_a_judgement_is_frozen_and_goes_through_json():
    labels, probs = make(15, 80)
    found = judge_clinically(labels, probs, own_lesions(80), resamples=30, seed=3)
    text = json.dumps(found.as_dict(), allow_nan=False)
    assert ClinicalJudgement.model_validate(json.loads(text)) == found
    assert judge_clinically(labels, probs, own_lesions(80), resamples=30, seed=3) == found
    with pytest.raises(Exception, match="frozen"):
        found.seed = 4


def test_arrays_that_do_not_fit_are_refused():
    labels, probs = make(16, 10)
    with pytest.raises(DataError):
        judge_clinically(labels, probs, ["a"] * 9)
