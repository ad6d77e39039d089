"""Calibration against independent optimisers and Bayes, everything that val may lack, and no look at own labels."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.predictions import Predictions, softmax
from lentigo.core.taxonomy import CLASS_CODES, MALIGNANT_LABELS
from lentigo.evaluation.calibration import Calibration, binary_score, calibrated_probs
from lentigo.evaluation.clinical import judge_clinically
from lentigo.evaluation.conformal import judge_sets
from lentigo.evaluation.fit_calibration import cross_fitted, fit_calibration
from lentigo.evaluation.scaling import class_mix, correct_prior, fit_class_prior, fit_temperature, fit_vector
from lentigo.evaluation.thresholds import fit_threshold

SKEWED = np.array([0.04, 0.06, 0.10, 0.02, 0.09, 0.67, 0.02])
FEW = {"resamples": 50}


def draw(seed, count, mix=None, spread=1.5):
    """Labels of a mix (uniform without one) and features z, for which softmax(spread * z) is right at equal shares.

    z is normal with variance 1 around `spread` at the label's place and 0 elsewhere: log p(z | c) = spread * z_c + ...
    """
    generator = np.random.default_rng(seed)
    labels = generator.choice(7, count, p=mix).astype(np.int64)
    z = generator.normal(size=(count, 7))
    z[np.arange(count), labels] += spread
    return labels, spread * z


def table(seed, count, mix=None, temperature=1.0, lesions=None, present=None):
    """Predictions whose logits are `temperature` times too large."""
    labels, logits = draw(seed, count, mix)
    if present is not None:
        keep = np.isin(labels, present)
        labels, logits = labels[keep], logits[keep]
    names = tuple(f"image-{i}" for i in range(len(labels)))
    ids = names if lesions is None else tuple(f"lesion-{i % lesions}" for i in range(len(labels)))
    return Predictions(names, ids, labels, (temperature * logits).astype(np.float32))


def loss_of_temperature(inverse, logits, labels):
    """Summed log loss with the documented extra image, written independently."""
    shifted = inverse * logits
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return losses.sum() + inverse - np.log(inverse) - 1.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0.05, 10.0))
def test_temperature_is_the_minimum_that_a_search_without_gradient_finds(seed, count, size):
    labels, logits = draw(seed, count)
    found = fit_temperature(size * logits, labels)
    expected = minimize_scalar(
        lambda log_inverse: loss_of_temperature(np.exp(log_inverse), size * logits, labels),
        bounds=(-7.0, 5.0),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert np.log(found) == pytest.approx(-expected.x, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature):
    labels, logits = draw(1, 5000)
    assert fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("count", [1, 3, 500])
def test_temperature_of_separated_wrong_and_empty_logits_is_finite(count):
    labels = np.arange(count) % 7
    right = 20.0 * np.eye(7)[labels]
    assert 0.01 < fit_temperature(right, labels) < 1.0 + 1e-9
    assert 1.0 < fit_temperature(right, (labels + 1) % 7) < 21.0 * count
    assert fit_temperature(np.zeros((count, 7)), labels) == pytest.approx(1.0)
    assert np.isfinite(fit_temperature(1e6 * right, labels))
    assert np.isfinite(fit_temperature(1e6 * right, (labels + 1) % 7))


@pytest.mark.parametrize("free_scale", [True, False])
@pytest.mark.parametrize("present", [range(7), (2, 5), (5,)])
def test_vector_scaling_is_the_minimum_that_a_search_without_gradient_finds(free_scale, present):
    predictions = table(2, 120, present=list(present))
    logits, labels = predictions.logits.astype(np.float64), predictions.label

    def loss(parameters):
        bias, scale = parameters[:7], parameters[7:] if free_scale else np.ones(7)
        losses = -np.log(softmax(logits * scale + bias)[np.arange(len(labels)), labels])
        return losses.sum() + 0.5 * (bias**2).sum() + 0.5 * ((scale - 1.0) ** 2).sum()

    start = np.concatenate([np.zeros(7), np.ones(7 if free_scale else 0)])
    scale, bias = fit_vector(logits, labels, free_scale=free_scale)
    expected = minimize(loss, start, method="BFGS", options={"gtol": 1e-6})
    np.testing.assert_allclose(bias, expected.x[:7], atol=1e-3)
    np.testing.assert_allclose(scale, expected.x[7:] if free_scale else np.ones(7), atol=1e-3)


def test_class_prior_that_a_model_speaks_of_is_found():
    """Probabilities that are right at equal shares, judged on a skewed mix; then corrected to that mix."""
    labels, logits = draw(3, 6000, SKEWED)
    at_equal_shares = softmax(logits)
    at_skewed = softmax(logits + np.log(SKEWED))
    np.testing.assert_allclose(fit_class_prior(at_equal_shares, labels), np.full(7, 1 / 7), atol=0.04)
    np.testing.assert_allclose(fit_class_prior(at_skewed, labels), SKEWED, atol=0.03)
    np.testing.assert_allclose(correct_prior(at_equal_shares, np.full(7, 1 / 7), SKEWED), at_skewed, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_prior_correction_there_and_back_changes_nothing(seed):
    generator = np.random.default_rng(seed)
    probs, old, new = (generator.dirichlet(np.ones(7), size) for size in (20, None, None))
    there = correct_prior(probs, old, new)
    np.testing.assert_allclose(there.sum(axis=1), 1.0)
    np.testing.assert_allclose(correct_prior(there, new, old), probs, atol=1e-9)


@pytest.mark.parametrize("new", [[0.5, 0.5], np.full(7, 0.2), [1.0, 0, 0, 0, 0, 0, 0], [np.nan] * 7])
def test_impossible_priors_are_refused(new):
    with pytest.raises(ConfigError, match="7 shares above 0"):
        correct_prior(np.full((1, 7), 1 / 7), np.full(7, 1 / 7), new)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40),
    st.sampled_from(["specificity", "sensitivity"]),
    st.sampled_from([0.5, 0.9, 0.95, 1.0]),
)
def test_threshold_reaches_its_level_with_the_best_other_side_and_parts_scores(rows, goal, level):
    """Against trying every threshold; few distinct scores make ties, 8 stands for the score 1."""
    positive, scores = np.array([row[0] for row in rows]), np.array([row[1] / 8 for row in rows])
    found = fit_threshold(positive, scores, question="malignant", goal=goal, level=level)
    assert (found.n_positive, found.n_negative) == (positive.sum(), (~positive).sum())
    if positive.all() or not positive.any():
        assert (found.threshold, found.detected, found.passed) == (None, None, None)
        assert "images that are malignant" in found.reason
        return
    sides = [((scores >= t)[positive].mean(), (scores < t)[~positive].mean()) for t in [*np.unique(scores), 2.0]]
    reached, other = (1, 0) if goal == "specificity" else (0, 1)
    best = max(side[other] for side in sides if side[reached] >= level)
    if found.threshold is None:
        assert "have the score 1" in found.reason
        assert best == 0.0
        return
    achieved = (found.detected / positive.sum(), found.passed / (~positive).sum())
    assert achieved[reached] >= level
    assert achieved[other] == best
    called = scores >= found.threshold
    assert achieved == (called[positive].mean(), (~called[~positive]).mean())
    assert found.threshold not in scores or found.threshold == 0.0


def test_thresholds_do_not_turn_with_the_last_digit_of_another_runtime():
    predictions = table(4, 400, SKEWED)
    calibration = fit_calibration(predictions, **FEW)
    shaken = predictions.logits + np.random.default_rng(0).normal(0.0, 1e-6, predictions.logits.shape)
    decided, again = calibration.decide(predictions.logits), calibration.decide(shaken)
    assert len(decided.positive) == 6
    for name, called in decided.positive.items():
        np.testing.assert_array_equal(called, again.positive[name])


def test_calibration_keeps_answers_and_lowers_the_log_loss():
    predictions = table(5, 900, temperature=3.0)
    calibration = fit_calibration(predictions, **FEW)
    probs = calibration.apply(predictions.logits)
    np.testing.assert_array_equal(probs.argmax(axis=1), predictions.logits.argmax(axis=1))
    losses = calibration.log_loss
    assert set(losses) == {"before", "temperature", "temperature_mix", "vector"}
    assert all(one.n == 900 and one.ci_low < one.value < one.ci_high for one in losses.values())
    assert losses["temperature"].value < losses["before"].value - 0.2
    assert calibration.temperature == pytest.approx(3.0, rel=0.1)


def test_vector_scaling_is_stored_and_changes_nothing_unasked(tmp_path):
    val = table(4, 300)
    calibration = fit_calibration(val, **FEW)
    again = Calibration.from_json(calibration.to_json(tmp_path / "calibration.json"))
    scale, bias = fit_vector(val.logits, val.label)
    np.testing.assert_allclose(again.apply_vector(val.logits), softmax(val.logits * scale + bias), rtol=1e-12)
    np.testing.assert_allclose(
        again.apply(val.logits), softmax(val.logits.astype(float) / again.temperature), rtol=1e-9
    )
    with pytest.raises(ConfigError, match="no vector scaling"):
        again.model_copy(update={"vector": None}).apply_vector(val.logits)


def test_prior_correction_to_vals_mix_explains_what_vector_scaling_gains():
    """A model of equal shares on a skewed val: temperature alone cannot know of the mix."""
    calibration = fit_calibration(table(6, 1500, SKEWED), **FEW)
    losses = {name: one.value for name, one in calibration.log_loss.items()}
    assert losses["temperature_mix"] < losses["temperature"] - 0.1
    assert losses["temperature_mix"] == pytest.approx(losses["vector"], abs=0.02)
    labels, logits = draw(7, 3000, SKEWED)
    probs = calibration.apply(logits, class_prior=calibration.mix)
    np.testing.assert_allclose(probs.mean(axis=0), np.bincount(labels, minlength=7) / 3000, atol=0.02)


def test_decisions_follow_from_the_stored_numbers():
    calibration = fit_calibration(table(8, 600, SKEWED), max_error=0.3, **FEW)
    new = table(9, 200, SKEWED)
    decided = calibration.decide(new.logits)
    probs = softmax(new.logits.astype(np.float64) / calibration.temperature)
    np.testing.assert_array_equal(decided.probs, probs)
    np.testing.assert_allclose(binary_score(probs, "malignant"), probs[:, list(MALIGNANT_LABELS)].sum(axis=1))
    for name, threshold in calibration.thresholds.items():
        expected = binary_score(probs, name.partition("_")[0]) >= threshold
        np.testing.assert_array_equal(decided.positive[name], expected)
    assert calibration.rules["confidence"].limit is not None
    expected = probs.max(axis=1) >= calibration.rules["confidence"].limit
    np.testing.assert_array_equal(decided.accepted["confidence"], expected)
    thresholds = np.asarray(calibration.sets["class_conditional"].thresholds)
    np.testing.assert_array_equal(decided.sets["class_conditional"], probs >= thresholds)
    found = judge_clinically(new.label, probs, new.lesion_id, thresholds=calibration.thresholds, resamples=5)
    point = found.questions["malignant"].operating_points["specificity_90"]
    malignant = np.isin(new.label, MALIGNANT_LABELS)
    assert point.sensitivity.value == decided.positive["malignant_specificity_90"][malignant].mean()


def test_no_image_sees_its_own_lesion_when_cross_fitted():
    """Absurd logits of one lesion spoil what others get, never what it gets itself."""
    predictions = table(10, 240, lesions=80)
    own = np.array([lesion == "lesion-7" for lesion in predictions.lesion_id])
    assert own.sum() == 3
    logits = predictions.logits.copy()
    logits[own] = 50.0 * np.eye(7, dtype=np.float32)[(predictions.label[own] + 1) % 7]

    def temperatures(one):
        log_probs = np.log(cross_fitted(one).probs)
        rows, low, high = np.arange(len(one)), one.logits.argmin(axis=1), one.logits.argmax(axis=1)
        range_before = one.logits[rows, high].astype(np.float64) - one.logits[rows, low]
        return range_before / (log_probs[rows, high] - log_probs[rows, low])

    before, after = temperatures(predictions), temperatures(replace(predictions, logits=logits))
    np.testing.assert_allclose(after[own], before[own], rtol=1e-4)
    changed = ~np.isclose(after, before, rtol=1e-3)
    assert 0.7 < changed[~own].mean() < 0.9, "four of five folds"


def test_cross_fitted_sets_cover_as_promised():
    predictions = table(11, 700)
    decided = cross_fitted(predictions, alpha=0.2, max_error=0.3)
    found = judge_sets(predictions.label, decided.sets["marginal"], predictions.lesion_id, **FEW)
    assert found.coverage.value == pytest.approx(0.8, abs=0.05)
    assert set(decided.positive) == set(fit_calibration(predictions, **FEW).thresholds)
    assert decided.accepted["confidence"].any()


def test_the_order_of_rows_changes_nothing():
    predictions = table(12, 150, lesions=90)
    order = np.random.default_rng(0).permutation(150)
    shuffled = Predictions(
        tuple(predictions.image_id[i] for i in order),
        tuple(predictions.lesion_id[i] for i in order),
        predictions.label[order],
        predictions.logits[order],
    )
    one, other = fit_calibration(predictions, **FEW), fit_calibration(shuffled, **FEW)
    assert one.temperature == pytest.approx(other.temperature)
    assert one.thresholds == pytest.approx(other.thresholds)
    np.testing.assert_allclose(cross_fitted(shuffled).probs, cross_fitted(predictions).probs[order], rtol=1e-6)


def test_a_class_absent_from_val_is_in_every_set_and_has_no_threshold():
    calibration = fit_calibration(table(13, 400, present=[0, 1, 2, 3, 5, 6]), **FEW)
    assert calibration.absent == (CLASS_CODES[4],)
    assert calibration.class_counts[4] == 0
    assert calibration.sets["class_conditional"].always_included == calibration.absent
    points = {point.name: point for point in calibration.operating_points}
    assert points["melanoma_sensitivity_95"].threshold is None
    assert "0 images that are melanoma" in points["melanoma_sensitivity_95"].reason
    assert set(calibration.thresholds) == {name for name in points if name.startswith("malignant")}
    new = table(14, 50)
    decided = calibration.decide(new.logits)
    assert decided.sets["class_conditional"][:, 4].all()
    assert np.isfinite(calibration.apply(new.logits, class_prior=SKEWED)).all()
    assert (decided.probs[:, 4] > 0).all(), "no images of a class in val do not make it impossible"


@pytest.mark.parametrize(("count", "present"), [(300, [5]), (300, [4]), (20, None), (1, None), (2, None)])
def test_single_class_and_tiny_val_sets_give_a_calibration(count, present, tmp_path):
    predictions = table(15, count, present=present)
    calibration = fit_calibration(predictions, **FEW)
    assert calibration.n_images == calibration.n_lesions == len(predictions)
    assert calibration.temperature > 0
    assert min(calibration.class_prior) > 0
    assert sum(calibration.class_prior) == pytest.approx(1.0)
    if len(set(predictions.label)) == 1:
        assert not [name for name in calibration.thresholds if name.startswith("melanoma")]
    if len(predictions) < 29:
        assert all(rule.limit is None and "no limit" in rule.reason for rule in calibration.rules.values())
        assert set(calibration.sets["class_conditional"].thresholds) >= {0.0}
    assert (calibration.log_loss["temperature"].value is None) == (len(predictions) == 1)
    assert Calibration.from_json(calibration.to_json(tmp_path / "calibration.json")) == calibration
    if len(predictions) > 1:
        assert np.isfinite(cross_fitted(predictions).probs).all()


def test_one_lesion_cannot_be_cross_fitted():
    with pytest.raises(DataError, match="at least 2 lesions; found 1"):
        cross_fitted(table(16, 5, lesions=1))


def test_nothing_to_calibrate_on_is_refused():
    empty = Predictions((), (), np.zeros(0, dtype=np.int64), np.zeros((0, 7), dtype=np.float32))
    with pytest.raises(DataError, match="found none"):
        fit_calibration(empty)
    assert fit_calibration(table(17, 50), **FEW).decide(empty.logits).probs.shape == (0, 7)


@pytest.mark.parametrize("split", ["test", "train"])
def test_other_splits_than_val_are_refused(split):
    with pytest.raises(ConfigError, match="fitted on val"):
        fit_calibration(table(18, 50), split=split)


def test_a_run_without_calibration_has_plain_softmax_and_a_named_remedy(tmp_path):
    predictions = table(19, 50)
    np.testing.assert_array_equal(calibrated_probs(predictions.logits, None), predictions.probs)
    calibration = fit_calibration(predictions, **FEW)
    np.testing.assert_array_equal(
        calibrated_probs(predictions.logits, calibration), calibration.apply(predictions.logits)
    )
    with pytest.raises(DataError, match="no calibration at") as raised:
        Calibration.from_json(tmp_path / "calibration.json")
    assert "lentigo evaluate" in raised.value.remedy


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = fit_calibration(table(20, 60), **FEW).to_json(tmp_path / "calibration.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    for change, place in (({"format_version": 2}, "format_version"), ({"temperature": "hot"}, "temperature")):
        path.write_text(json.dumps(content | change), encoding="utf-8")
        with pytest.raises(DataError, match=place):
            Calibration.from_json(path)
    for text in (b"{", b"\xff\xfe"):
        path.write_bytes(text)
        with pytest.raises(DataError, match="wrong there: the text"):
            Calibration.from_json(path)


def test_class_mix_leaves_no_class_out():
    np.testing.assert_allclose(class_mix(np.array([0, 3])), [0.2, 0.8])


def test_a_calibration_is_applied_without_scipy_and_torch():
    blocked = "import sys; sys.modules.update(dict.fromkeys(('scipy', 'torch', 'sklearn', 'pandas')))\n"
    code = "import numpy as np; from lentigo.evaluation.calibration import Calibration, calibrated_probs\n"
    code += "print(calibrated_probs(np.zeros((1, 7)), None).shape)"
    said = subprocess.run([sys.executable, "-c", blocked + code], capture_output=True, text=True, check=False)
    assert (said.stdout.strip(), said.returncode) == ("(1, 7)", 0), said.stderr
