"""Whether probabilities mean what they say: Brier score, calibration error, reliability bins."""

from __future__ import annotations

import numpy as np

from lentigo.evaluation.curves import Positive
from lentigo.evaluation.metrics import Floats, Labels, ratio

BINS = 15


def brier_scores(labels: Labels, probs: Floats) -> Floats:
    """Sum over classes of the squared error, per image (N,), in 0..2 (Brier, Mon. Weather Rev. 78, 1950)."""
    truth = labels[:, None] == np.arange(probs.shape[1])
    scores: Floats = ((probs - truth) ** 2).sum(axis=1)
    return scores


def equal_mass_bins(confidence: Floats, count: int = BINS) -> Labels:
    """The bin of each image, (N,) from 0, so that bins hold about equally many images; none is empty.

    Images of equal confidence are never parted, whatever the order of rows: where many are equal, bins are unequal
    and fewer than `count`.
    """
    places = np.arange(1, count) * len(confidence) // count
    edges = np.sort(confidence)[places] if len(confidence) else confidence
    bins = np.searchsorted(np.unique(edges), confidence, side="right")
    return np.unique(bins, return_inverse=True)[1].astype(np.int64)


def calibration_errors(right: Positive, confidence: Floats, bins: Labels, weights: Floats) -> Floats:
    """Expected calibration error of the answers, (B,), in 0..1: mean distance of confidence and accuracy over bins.

    right: (N,) bool; confidence: (N,) probability of the answer; bins: (N,) from `equal_mass_bins`; weights: (N, B).
    Equal-mass bins are less biased than equal-width ones (Nixon et al., CVPR workshops 2019), yet the value still
    is above 0 for a calibrated model: `error_by_chance` says by how much.
    """
    member = bins[:, None] == np.arange(bins.max(initial=-1) + 1)
    gaps = np.abs(weights.T @ (member * (right - confidence)[:, None])).sum(axis=1)
    return ratio(gaps, weights.sum(axis=0))


def error_by_chance(confidence: Floats, bins: Labels) -> float | None:
    """The calibration error that a perfectly calibrated model of these confidences shows on average; None for none.

    Right answers of a bin are then a sum of independent draws, whose mean distance from its expectation is
    sqrt(2 / pi) standard deviations (normal approximation of the resampling of Broecker & Smith, Weather and
    Forecasting 22, 2007). Images count as independent: with several a lesion it is more.
    """
    if not len(confidence):
        return None
    variance = np.bincount(bins, weights=confidence * (1.0 - confidence))
    return float(np.sqrt(2.0 / np.pi * variance.clip(min=0.0)).sum() / len(confidence))
