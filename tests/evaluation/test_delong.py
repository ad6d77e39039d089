"""DeLong's test against its definition, a pair-by-pair count, and simulated truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lentigo.core.taxonomy import CLASS_CODES, MALIGNANT_LABELS
from lentigo.evaluation.delong import MELANOMA, TASKS, auc_components, auc_covariance, delong, task_scores
from lentigo.evaluation.metrics import weighted_auc


def scored(seed, count=60, levels=0):
    """Positives, and scores (2, N) of two systems that agree in part; with `levels`, rounded so that many tie."""
    generator = np.random.default_rng(seed)
    positive = generator.random(count) < 0.4
    shared = generator.normal(size=count)
    scores = positive + shared + generator.normal(size=(2, count)) * np.array([[0.5], [1.0]])
    return positive, np.round(scores * levels) / levels if levels else scores


def by_pairs(positive, scores):
    """AUCs and their covariance from the kernel of every pair of a positive and a negative image."""
    kernels = []
    for one in scores:
        above, below = one[positive][:, None], one[~positive][None, :]
        kernels.append((above > below) + 0.5 * (above == below))
    aucs = np.array([kernel.mean() for kernel in kernels])
    of_positives = np.stack([kernel.mean(axis=1) for kernel in kernels])
    of_negatives = np.stack([kernel.mean(axis=0) for kernel in kernels])
    return aucs, np.cov(of_positives) / positive.sum() + np.cov(of_negatives) / (~positive).sum()


def own(count):
    """A lesion for each image."""
    return [f"lesion-{i}" for i in range(count)]


@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("seed", range(8))
def test_covariance_is_that_of_the_definition(seed, levels):
    positive, scores = scored(seed, levels=levels)
    aucs, covariance = auc_covariance(positive, scores, own(60))
    expected_aucs, expected = by_pairs(positive, scores)
    np.testing.assert_allclose(aucs, expected_aucs, atol=1e-14)
    np.testing.assert_allclose(covariance, expected, atol=1e-14)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30))
def test_any_scores_agree_with_the_definition(rows):
    positive = np.array([row[0] for row in rows])
    scores = np.array([row[1:] for row in rows], dtype=float).T
    if min(positive.sum(), (~positive).sum()) < 2:
        return
    aucs, covariance = auc_covariance(positive, scores, own(len(rows)))
    expected_aucs, expected = by_pairs(positive, scores)
    np.testing.assert_allclose(aucs, expected_aucs, atol=1e-14)
    np.testing.assert_allclose(covariance, expected, atol=1e-14)


def test_components_average_to_the_auc_of_metrics():
    positive, (scores, _) = scored(3, levels=3)
    of_positives, of_negatives = auc_components(positive, scores)
    expected = weighted_auc(positive, scores, np.ones((60, 1)))[0]
    assert of_positives.mean() == pytest.approx(expected)
    assert of_negatives.mean() == pytest.approx(expected)


def test_test_by_hand():
    """Three positives and two negatives; the other system swaps one pair."""
    positive = np.array([True, True, True, False, False])
    found = delong(positive, np.array([5.0, 4, 2, 3, 1]), np.array([5.0, 4, 3, 2, 1]), own(5))
    assert (found.baseline, found.other, found.value) == pytest.approx((5 / 6, 1.0, 1 / 6))
    # Components differ by 1/2 for one of three positives and by 1/3 for one of two negatives.
    variance = np.var([0, 0, 1 / 2], ddof=1) / 3 + np.var([1 / 3, 0], ddof=1) / 2
    assert (found.ci_low, found.ci_high) == pytest.approx(1 / 6 + np.array([-1, 1]) * 1.959964 * np.sqrt(variance))
    stats = pytest.importorskip("scipy.stats")
    assert found.p == pytest.approx(2 * stats.norm.sf(1 / 6 / np.sqrt(variance)))
    assert (found.n_positive, found.n_negative, found.one_image_per_lesion) == (3, 2, True)


def test_the_other_way_round():
    positive, scores = scored(5)
    there, back = delong(positive, *scores, own(60)), delong(positive, *scores[::-1], own(60))
    assert back.value == pytest.approx(-there.value)
    assert (back.ci_low, back.ci_high) == pytest.approx((-there.ci_high, -there.ci_low))
    assert back.p == pytest.approx(there.p)


def test_equal_systems_are_called_different_as_often_as_said_and_the_interval_covers():
    rejected, covered, rounds = 0, 0, 400
    for seed in range(rounds):
        generator = np.random.default_rng(seed)
        positive = np.arange(150) % 3 == 0
        shared = generator.normal(size=150)
        scores = positive + shared + generator.normal(size=(2, 150))
        rejected += delong(positive, *scores, own(150)).p < 0.05
        # The other system also has another signal: AUCs of two normals d apart with variance 2 are Phi(d / 2).
        scores[1] += 0.5 * positive
        truth = 0.7733726 - 0.6914625  # Phi(0.75) - Phi(0.5)
        found = delong(positive, *scores, own(150))
        covered += found.ci_low <= truth <= found.ci_high
    # 5% of 400 is 20, with a standard deviation of 4.4.
    assert 8 <= rejected <= 33
    assert covered >= 367


def test_lesions_with_several_images_do_not_make_it_surer():
    """Every image four times over: nothing new is known, and the variance must stay what it was."""
    positive, scores = scored(7)
    once = delong(positive, *scores, own(60))
    copies = delong(np.repeat(positive, 4), *np.repeat(scores, 4, axis=1), np.repeat(own(60), 4))
    assert (copies.value, copies.ci_low, copies.p) == pytest.approx((once.value, once.ci_low, once.p))
    assert (once.one_image_per_lesion, copies.one_image_per_lesion) == (True, False)
    naive = delong(np.repeat(positive, 4), *np.repeat(scores, 4, axis=1), own(240))
    assert naive.p < copies.p


@pytest.mark.parametrize("mixed", [False, True])
def test_clustered_systems_are_called_different_as_often_as_said(mixed):
    """Images of a lesion share most of both systems' noise; `mixed` lesions have images of both kinds."""
    rejected, rounds = 0, 300
    lesions = np.repeat(own(80), 3)
    positive = np.arange(240) % 3 == 0 if mixed else np.repeat(np.arange(80) % 2 == 0, 3)
    for seed in range(rounds):
        generator = np.random.default_rng(seed)
        noise = np.repeat(generator.normal(size=(2, 80)), 3, axis=1) + 0.3 * generator.normal(size=(2, 240))
        rejected += delong(positive, *(positive + noise), lesions).p < 0.05
    # 5% of 300 is 15, with a standard deviation of 3.8.
    assert 5 <= rejected <= 27


def test_what_cannot_be_known_is_null():
    positive, scores = scored(1)
    alike = delong(positive, scores[0], 2 * scores[0], own(60))
    assert (alike.value, alike.p, alike.ci_low) == (0.0, 1.0, None)
    sure = delong(positive, np.where(positive, 0.0, 1.0), np.where(positive, 1.0, 0.0), own(60))
    assert (sure.value, sure.p, sure.ci_low) == (1.0, None, None), "complete separation has no variance"
    for one_kind in (np.ones(60, bool), np.zeros(60, bool)):
        nothing = delong(one_kind, *scores, own(60))
        assert (nothing.baseline, nothing.other, nothing.value, nothing.p) == (None,) * 4
        assert nothing.n_positive + nothing.n_negative == 60
    single = np.arange(60) == 7
    few = delong(single, *scores, own(60))
    assert few.value is not None
    assert (few.p, few.ci_low) == (None, None)
    one_lesion = delong(positive, *scores, np.where(positive, "same", own(60)))
    assert one_lesion.p is None


def test_tasks():
    labels = np.arange(7)
    probs = np.eye(7) * 0.4 + 0.6 / 7
    assert list(TASKS) == ["malignant", *CLASS_CODES]
    positive, scores = task_scores(labels, probs, "malignant")
    assert tuple(np.flatnonzero(positive)) == MALIGNANT_LABELS
    np.testing.assert_allclose(scores, probs[:, list(MALIGNANT_LABELS)].sum(axis=1))
    positive, scores = task_scores(labels, probs, MELANOMA)
    assert positive.sum() == 1
    np.testing.assert_array_equal(scores, probs[:, positive.argmax()])


def test_order_of_rows_changes_nothing():
    positive, scores = scored(2)
    lesions = np.array([f"lesion-{i // 2}" for i in range(60)])
    order = np.random.default_rng(1).permutation(60)
    one, other = delong(positive, *scores, lesions), delong(positive[order], *scores[:, order], lesions[order])
    assert one.p == pytest.approx(other.p)
