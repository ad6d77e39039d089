"""Outlier scores against oracles, and the gate's guarantee."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from lentigo.core.errors import CheckpointError, DataError
from lentigo.core.files import write_text_atomic
from lentigo.evaluation.outliers import (
    FeatureStatistics,
    energy,
    fit_gate,
    fit_statistics,
    judge_kind,
    max_softmax,
)


def features(count: int, width: int = 12, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(width, width))
    return (5 + generator.normal(size=(count, width)) @ mixing).astype(np.float32)


def length_one(values: np.ndarray) -> np.ndarray:
    return values.astype(float) / np.linalg.norm(values.astype(float), axis=1, keepdims=True)


def test_one_class_agrees_with_scikit_learn_s_probabilistic_pca() -> None:
    train, new = features(200), features(50, seed=1)
    oracle = PCA(n_components=5, svd_solver="full").fit(length_one(train))
    away = length_one(new) - oracle.mean_
    expected = np.einsum("ni,ij,nj->n", away, oracle.get_precision(), away)
    found = fit_statistics(train, np.zeros(200, dtype=np.int64), components=5).distances(new)
    assert found == pytest.approx(expected, rel=1e-3)


def test_several_classes_take_the_nearest_mean_and_one_covariance() -> None:
    train, labels = features(300), np.arange(300) % 3
    train[labels == 1] += 4.0
    values = length_one(train)
    means = np.stack([values[labels == c].mean(axis=0) for c in range(3)])
    within = values - means[labels]
    # All but one direction kept: the residual is the smallest eigenvalue itself, and nothing is averaged.
    precision = np.linalg.inv(within.T @ within / (300 - 3))
    away = values[:, None] - means
    expected = np.einsum("nci,ij,ncj->nc", away, precision, away).min(axis=1)
    found = fit_statistics(train, labels, components=64).distances(train)
    assert found == pytest.approx(expected, rel=2e-3)


def test_the_length_of_features_does_not_matter() -> None:
    statistics = fit_statistics(features(100), np.arange(100) % 7)
    assert statistics.distances(3 * features(9, seed=2)) == pytest.approx(statistics.distances(features(9, seed=2)))
    assert np.isfinite(statistics.distances(np.zeros((1, 12), dtype=np.float32))).all()


def test_more_features_than_images() -> None:
    statistics = fit_statistics(features(60, width=200), np.arange(60) % 7)
    assert statistics.directions.shape == (200, 26)
    assert statistics.residual > 0
    far = features(20, width=200, seed=3)[:, ::-1]
    assert statistics.distances(far).min() > np.median(statistics.distances(features(60, width=200)))


def test_too_few_or_constant_features_are_refused() -> None:
    with pytest.raises(DataError, match="16 training images more than classes; found 22 of 7"):
        fit_statistics(features(22), np.arange(22) % 7)
    with pytest.raises(DataError, match="constant"):
        fit_statistics(np.ones((50, 4), dtype=np.float32), np.zeros(50, dtype=np.int64))


def test_statistics_in_a_file(tmp_path: Path) -> None:
    statistics = fit_statistics(features(100), np.arange(100) % 7)
    again = FeatureStatistics.from_file(statistics.to_file(tmp_path / "run" / "statistics.npz"))
    new = features(30, seed=4)
    assert np.array_equal(again.distances(new), statistics.distances(new))
    for damaged in (write_text_atomic(tmp_path / "bad.npz", "no"), tmp_path / "none.npz"):
        with pytest.raises(CheckpointError, match="no feature statistics"):
            FeatureStatistics.from_file(damaged)


def test_logit_scores() -> None:
    logits = np.random.default_rng(0).normal(scale=5, size=(40, 7))
    tensor = torch.from_numpy(logits)
    assert energy(logits) == pytest.approx(-tensor.logsumexp(dim=1).numpy())
    assert max_softmax(logits) == pytest.approx(1 - tensor.softmax(dim=1).max(dim=1).values.numpy())
    huge = np.array([[1e4, 0.0]])
    assert (energy(huge)[0], max_softmax(huge)[0]) == (-1e4, 0.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=200), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_threshold_is_the_lowest_that_lets_enough_pass(values: list[int], pass_rate: float) -> None:
    scores = np.array(values, dtype=float)
    gate = fit_gate("energy", scores, pass_rate)
    wanted = min(math.ceil(pass_rate * (len(scores) + 1)), len(scores))
    assert (~gate.rejects(scores)).sum() >= wanted
    lower = scores[scores < gate.threshold]
    assert len(lower) < wanted


def test_new_images_pass_as_often_as_promised() -> None:
    generator = np.random.default_rng(5)
    passed = []
    for _ in range(400):
        gate = fit_gate("energy", generator.normal(size=50), 0.9)
        passed.append((~gate.rejects(generator.normal(size=200))).mean())
    assert 0.895 <= np.mean(passed) <= 0.925


def test_a_gate_needs_val_images() -> None:
    with pytest.raises(DataError, match="no val images"):
        fit_gate("energy", np.zeros(0))


def test_judgement_of_a_kind() -> None:
    generator = np.random.default_rng(6)
    familiar, strange = generator.normal(size=300), generator.normal(1.5, 1, size=100)
    gate = fit_gate("mahalanobis", familiar)
    names = [str(i) for i in range(300)]
    found = judge_kind(gate, familiar, names, strange, names[:100], resamples=300)
    truth = np.repeat([0, 1], [300, 100])
    assert found.auroc.value == pytest.approx(roc_auc_score(truth, np.concatenate([familiar, strange])))
    assert found.auroc.ci_low < found.auroc.value < found.auroc.ci_high
    assert (found.auroc.n, found.rejected.n) == (100, 100)
    assert found.rejected.value == pytest.approx((strange > gate.threshold).mean())
    all_out = judge_kind(gate, familiar, names, strange + 100, names[:100], resamples=50)
    assert (all_out.auroc.value, all_out.rejected.value) == (1.0, 1.0)
    assert all_out.rejected.ci_low < 1.0, "100 of 100 is no certainty"
    none = judge_kind(gate, familiar, names, strange[:0], [], resamples=50)
    assert (none.auroc.value, none.auroc.n, none.rejected.value, none.rejected.n) == (None, 0, None, 0)


def test_the_gate_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import lentigo.evaluation.outliers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
