"""Is an image of the kind the network was trained on? Scores, a gate with a threshold from val, and its judgement.

Three scores per image, higher is stranger:

- energy: minus the log of the summed exponentials of the logits (Liu et al., NeurIPS 2020);
- max_softmax: 1 minus the probability of the answer (Hendrycks & Gimpel, ICLR 2017);
- mahalanobis: squared distance of the pooled features from the nearest class mean under one covariance for all
  classes (Lee et al., NeurIPS 2018), features scaled to length 1 (Mueller & Hein, ICML 2025).

The gate uses mahalanobis: on photographs of other things and on drawings it is far ahead of the logits, which took
noisy images for more familiar than val (results/outliers-report-gray-paper-v3.json; docs/explanation/outliers.md has
the command). The features are scaled to length 1 because without it, networks trained on a few hundred images took
noise for familiar. Pen marks are seen by no score; blur and exposure are the business of `data.quality`.
`measure_outliers` judges any run.

Here all is numpy, for any runtime that has the features; only the measurement needs torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lentigo.core.errors import CheckpointError, DataError
from lentigo.core.files import write_atomic
from lentigo.core.predictions import softmax
from lentigo.evaluation.intervals import bootstrap, proportions
from lentigo.evaluation.metrics import Estimate, Floats, Groups, Labels, rarer_side, weighted_auc

Features = NDArray[np.float32]
ScoreName = Literal["mahalanobis", "energy", "max_softmax"]

COMPONENTS = 64
"""Directions whose variance is kept on its own; more hardly changed the score and take more room."""
PASS_RATE = 0.95
_FEWEST_IMAGES = 16


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """Class means and one covariance of pooled features scaled to length 1: some directions, one variance for the rest.

    means: (C, D); directions: (D, K), orthonormal; variances: (K,); residual: the variance in every other direction.
    A covariance of D = 1280 features from some thousand images is singular or nearly so; averaging the small
    eigenvalues (probabilistic PCA: Tipping & Bishop, J. R. Stat. Soc. B 61, 1999) is the shrinkage used here.
    """

    means: Features
    directions: Features
    variances: Features
    residual: float

    def distances(self, features: Features) -> Floats:
        """Squared Mahalanobis distance of each row (N, D) from its nearest class mean, (N,)."""
        distances = []
        values = _to_length_one(features)
        for mean in self.means:
            away = values - mean
            along = away @ self.directions.astype(np.float64)
            rest = (away**2).sum(axis=1) - (along**2).sum(axis=1)
            distances.append((along**2 / self.variances).sum(axis=1) + rest / self.residual)
        nearest: Floats = np.min(distances, axis=0)
        return nearest

    def to_file(self, path: Path) -> Path:
        """Write an `.npz` atomically."""

        def write(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                np.savez(
                    stream,
                    means=self.means,
                    directions=self.directions,
                    variances=self.variances,
                    residual=np.float64(self.residual),
                )

        return write_atomic(path, write)

    @classmethod
    def from_file(cls, path: Path) -> FeatureStatistics:
        """Read what `to_file` wrote; CheckpointError where it is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as content:
                return cls(content["means"], content["directions"], content["variances"], float(content["residual"]))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise CheckpointError(f"{path} holds no feature statistics: {error}", "Fit the gate again.") from None


def fit_statistics(features: Features, labels: Labels, components: int = COMPONENTS) -> FeatureStatistics:
    """Statistics of training images: features (N, D), labels (N,) 0..6; classes without images have no mean.

    Raises:
        DataError: for fewer than 16 images more than classes, or constant features.
    """
    classes, place = np.unique(labels, return_inverse=True)
    count, width = features.shape
    if count - len(classes) < _FEWEST_IMAGES:
        raise DataError(
            f"expected {_FEWEST_IMAGES} training images more than classes; found {count} of {len(classes)} classes",
            "Fit the gate on more images.",
        )
    values = _to_length_one(features)
    means = np.stack([values[place == c].mean(axis=0) for c in range(len(classes))])
    within = values - means[place]
    spectrum, vectors = np.linalg.eigh(within.T @ within / (count - len(classes)))
    kept = min(components, (count - len(classes)) // 2, width - 1)
    residual = float(spectrum[: width - kept].mean())
    if residual <= 0.0:
        raise DataError("the features of the training images are constant", "The network has collapsed; train again.")
    order = np.arange(width)[::-1][:kept]
    return FeatureStatistics(
        means.astype(np.float32), vectors[:, order].astype(np.float32), spectrum[order].astype(np.float32), residual
    )


def _to_length_one(features: Features) -> Floats:
    """Rows (N, D) divided by their Euclidean lengths; rows of zeros stay."""
    values = features.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: Floats = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
    return scaled


def energy(logits: NDArray[np.floating]) -> Floats:
    """Free energy at temperature 1, (N,) in nats: -log(sum(exp(logits))) of logits (N, C)."""
    values = logits.astype(np.float64)
    highest = values.max(axis=1)
    result: Floats = -(highest + np.log(np.exp(values - highest[:, None]).sum(axis=1)))
    return result


def max_softmax(logits: NDArray[np.floating]) -> Floats:
    """1 minus the answer's probability, (N,), of logits (N, C)."""
    result: Floats = 1.0 - softmax(logits).max(axis=1)
    return result


class OutlierGate(BaseModel):
    """A score and the threshold above which an image is rejected; fitted on val, JSON-able.

    Of new images of val's kind, at least `pass_rate` pass on average over val sets (split-conformal quantile).
    """

    model_config = ConfigDict(frozen=True)

    score: ScoreName
    threshold: float
    pass_rate: float
    n: int

    def rejects(self, scores: Floats) -> NDArray[np.bool_]:
        """Whether each image (N,) is too strange; at the threshold it passes."""
        rejected: NDArray[np.bool_] = scores > self.threshold
        return rejected


def fit_gate(score: ScoreName, val_scores: Floats, pass_rate: float = PASS_RATE) -> OutlierGate:
    """The lowest threshold that lets ceil(pass_rate * (n + 1)) of n val images pass; with a tiny val, all of them.

    Raises:
        DataError: without val images.
    """
    count = len(val_scores)
    if not count:
        raise DataError("no val images to fix the threshold on", "Make a split that has val images.")
    rank = min(math.ceil(pass_rate * (count + 1)), count)
    return OutlierGate(score=score, threshold=float(np.sort(val_scores)[rank - 1]), pass_rate=pass_rate, n=count)


class KindJudgement(BaseModel):
    """One kind of strange image against the familiar ones: how well the score ranks, what the gate rejects.

    `auroc` is 0.5 for a score that knows nothing; its n counts the rarer side, that of `rejected` the strange images.
    """

    model_config = ConfigDict(frozen=True)

    auroc: Estimate
    rejected: Estimate


class ScoreJudgement(BaseModel):
    """One score: its gate, and each kind by name."""

    model_config = ConfigDict(frozen=True)

    gate: OutlierGate
    kinds: dict[str, KindJudgement]


class OutlierJudgement(BaseModel):
    """All scores on one run; `chosen` names the gate's.

    `n_train` images gave the statistics. The `n_familiar` val images fixed the thresholds and are what each kind is
    held against, so that of them 1 - pass_rate are rejected by construction.
    """

    model_config = ConfigDict(frozen=True)

    chosen: ScoreName
    n_train: int
    n_familiar: int
    synthetic: bool
    scores: dict[ScoreName, ScoreJudgement]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready content."""
        return self.model_dump(mode="json")


def judge_kind(
    gate: OutlierGate,
    familiar: Floats,
    familiar_groups: Groups,
    strange: Floats,
    strange_groups: Groups,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> KindJudgement:
    """AUROC with its lesion-bootstrap interval, and the rejected share with that of `intervals.proportions`."""
    scores = np.concatenate([familiar, strange])
    is_strange = np.arange(len(scores)) >= len(familiar)
    # Prefixed: a corrupted image has the lesion id of a familiar one, but the two sides are drawn apart.
    groups = [f"familiar {group}" for group in familiar_groups] + [f"strange {group}" for group in strange_groups]
    drawn = bootstrap(
        lambda weights: {"auroc": weighted_auc(is_strange, scores, weights)}, groups, resamples=resamples, seed=seed
    )
    shares = {"rejected": (gate.rejects(strange), np.ones(len(strange), dtype=bool))}
    return KindJudgement(
        auroc=drawn.estimate("auroc", rarer_side(is_strange)),
        rejected=proportions(shares, strange_groups, resamples=resamples, seed=seed)["rejected"],
    )
