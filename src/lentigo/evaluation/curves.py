"""What follows from the order of scores: ROC and precision-recall curves, risk-coverage, net benefit.

As in `metrics`, every function takes weights (N, B), one column a weighting, and gives (B, ...) at once; nan where
undefined. An image is called positive where its score reaches the threshold (score >= threshold), so images of equal
scores are called together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lentigo.evaluation.metrics import Floats, Labels, ratio

CURVE_POINTS = 200
"""Points of a drawn curve at most: more cannot be told apart, and a report has twenty of them."""
Positive = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CountsAbove:
    """What lies at or above each of T falling thresholds.

    thresholds: (T,), each the score of an image; positives, negatives: (T, B) summed weights. Runs of negatives
    between two positives make one threshold, their lowest score: nothing that is read off a curve changes within.
    highest: the highest score of all, nan without images.
    """

    thresholds: Floats
    positives: Floats
    negatives: Floats
    highest: float

    @property
    def sensitivity(self) -> Floats:
        """(T + 1, B), rising from 0 at a threshold above all scores."""
        return _share_of_last(self.positives)

    @property
    def false_positive_rate(self) -> Floats:
        """(T + 1, B), rising from 0."""
        return _share_of_last(self.negatives)

    @property
    def specificity(self) -> Floats:
        """(T + 1, B), falling from 1.

        Divides what is left rather than subtracting a share from 1: so 45 of 50 is 0.9 and not a digit less.
        """
        total = self.negatives[-1:] if len(self.negatives) else np.zeros((1, self.negatives.shape[1]))
        left = np.concatenate([total, total - self.negatives])
        return ratio(left, np.broadcast_to(total, left.shape))


def counts_above(positive: Positive, scores: Floats, weights: Floats) -> CountsAbove:
    """Weights of positives and negatives at or above each threshold; sorted once for all weightings.

    positive: (N,) bool; scores: (N,) float64, higher means more positive; weights: (N, B).
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    first_of_tie = np.ones(len(scores), dtype=np.bool_)
    first_of_tie[1:] = scores[1:] != scores[:-1]
    tie = np.cumsum(first_of_tie) - 1
    has_positive = np.bincount(tie, weights=positive) > 0
    starts_run = np.ones(len(has_positive), dtype=np.bool_)
    starts_run[1:] = has_positive[1:] | has_positive[:-1]
    run = (np.cumsum(starts_run) - 1)[tie]
    lowest = np.flatnonzero(np.diff(run, append=len(run)))
    sums = [_sum_by_run(weights[order[rows]], run[rows], len(lowest)) for rows in (positive, ~positive)]
    positives, negatives = (np.cumsum(one, axis=0) for one in sums)
    return CountsAbove(scores[lowest], positives, negatives, float(scores[0]) if len(scores) else np.nan)


def average_precision(counts: CountsAbove) -> Floats:
    """Area under the precision-recall curve in steps, (B,): mean precision at the positives, as in scikit-learn.

    Nan without positives. No line is drawn between points: on this curve that would be too good (Davis & Goadrich,
    ICML 2006).
    """
    gained = np.diff(counts.positives, axis=0, prepend=0.0)
    precision = np.nan_to_num(ratio(counts.positives, counts.positives + counts.negatives))
    return ratio((gained * precision).sum(axis=0), gained.sum(axis=0))


def sensitivity_at_specificity(counts: CountsAbove, level: float) -> Floats:
    """The highest sensitivity at a specificity of `level` or more, (B,); nan where a side is empty."""
    return _best_where(counts.sensitivity, counts.specificity, level)


def specificity_at_sensitivity(counts: CountsAbove, level: float) -> Floats:
    """The highest specificity at a sensitivity of `level` or more, (B,); nan where a side is empty."""
    return _best_where(counts.specificity, counts.sensitivity, level)


def threshold_at_specificity(counts: CountsAbove, level: float) -> float | None:
    """The threshold of `sensitivity_at_specificity` for one weighting; of several the highest. None where undefined.

    Where even the highest score would call too many negatives positive, a threshold just above it: none is called.
    """
    return _best_threshold(counts, counts.sensitivity[:, 0], counts.specificity[:, 0], level)


def threshold_at_sensitivity(counts: CountsAbove, level: float) -> float | None:
    """The threshold of `specificity_at_sensitivity` for one weighting; of several the highest. None where undefined."""
    return _best_threshold(counts, counts.specificity[:, 0], counts.sensitivity[:, 0], level)


def partial_auc(counts: CountsAbove, sensitivity: float) -> Floats:
    """The part of the area under the ROC curve that lies beyond the point where it reaches `sensitivity`, (B,).

    Not rescaled: 1 for a perfect order, (1 - sensitivity^2) / 2 for chance.
    """
    low_y, high_y = counts.sensitivity[:-1], counts.sensitivity[1:]
    low_x, high_x = counts.false_positive_rate[:-1], counts.false_positive_rate[1:]
    # The segment that crosses the level counts from the crossing on.
    share = np.where(low_y < sensitivity, np.nan_to_num(ratio(sensitivity - low_y, high_y - low_y)), 0.0)
    areas = (high_x - low_x) * (1.0 - share) * 0.5 * (np.maximum(low_y, sensitivity) + high_y)
    defined = ~np.isnan(counts.sensitivity[0] + counts.false_positive_rate[0])
    return np.where(defined, np.where(high_y >= sensitivity, areas, 0.0).sum(axis=0), np.nan)


def roc_points(positive: Positive, scores: Floats) -> tuple[Floats, Floats]:
    """False positive rate and sensitivity, (T,) each, both from 0 to 1; at most CURVE_POINTS points."""
    counts = counts_above(positive, scores, np.ones((len(scores), 1)))
    return _thinned(counts.false_positive_rate[:, 0], counts.sensitivity[:, 0])


def precision_recall_points(positive: Positive, scores: Floats) -> tuple[Floats, Floats]:
    """Recall and precision, (T,) each, by falling threshold; at most CURVE_POINTS points; to draw in steps."""
    counts = counts_above(positive, scores, np.ones((len(scores), 1)))
    answered = counts.positives + counts.negatives
    return _thinned(counts.sensitivity[1:, 0], ratio(counts.positives, answered)[:, 0])


def net_benefit(positive: Positive, scores: Floats, weights: Floats, thresholds: Floats) -> tuple[Floats, Floats]:
    """Net benefit of acting on scores that reach t, and of acting on all, (B, T) each, in true positives per image.

    TP/N - FP/N * t/(1-t): at a threshold t one accepts (1-t)/t false alarms for one hit (Vickers & Elkin, Med.
    Decis. Making 26(6), 2006). Acting on none has net benefit 0. The scores must be probabilities.
    thresholds: (T,) in 0..1, without 1.
    """
    odds = thresholds / (1.0 - thresholds)
    acted = scores[:, None] >= thresholds
    worth = np.where(positive[:, None], 1.0, -odds)
    total = weights.sum(axis=0)[:, None]
    model, every = weights.T @ (acted * worth), weights.T @ worth
    total = np.broadcast_to(total, model.shape)
    return ratio(model, total), ratio(every, total)


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Answers kept at each of T falling limits of confidence: limits, coverage and risk, (T,) each.

    coverage: share of images with that confidence or more; risk: share of wrong answers among them.
    """

    limits: Floats
    coverage: Floats
    risk: Floats


def risk_coverage(right: Positive, confidence: Floats) -> RiskCoverage:
    """Risk and coverage at every limit of confidence, one for each distinct value (Geifman & El-Yaniv, NeurIPS 2017).

    right: (N,) bool, whether the answer was right; confidence: (N,), kept where confidence >= limit.
    """
    limits, tie, kept = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(tie, weights=~right, minlength=len(limits))
    covered = np.cumsum(kept).astype(np.float64)
    return RiskCoverage(-limits, covered / max(len(right), 1), np.cumsum(wrong) / covered)


def risk_at_coverage(right: Positive, confidence: Floats, weights: Floats, coverages: Floats) -> Floats:
    """Risk where the most confident share of the images is answered, (B, K); coverages: (K,) in 0..1 without 0.

    Of images of equal confidence any may be the ones that are left out: the expected risk is given.
    """
    counts = counts_above(~right, confidence, weights)
    wrong, covered = _from_zero(counts.positives), _from_zero(counts.positives + counts.negatives)
    wanted = covered[-1][:, None] * coverages
    columns = [np.interp(wanted[b], covered[:, b], wrong[:, b]) for b in range(weights.shape[1])]
    return ratio(np.reshape(columns, wanted.shape), wanted)


def area_under_risk_coverage(right: Positive, confidence: Floats, weights: Floats) -> Floats:
    """AURC, (B,): mean risk over the coverages 1/n, 2/n ... 1 (Geifman, Uziel & El-Yaniv, ICLR 2019).

    weights: (N, B) whole numbers. Expected over the order of images of equal confidence.
    """
    counts = counts_above(~right, confidence, weights)
    wrong, covered = _from_zero(counts.positives), _from_zero(counts.positives + counts.negatives)
    new_wrong, new = np.diff(wrong, axis=0), np.diff(covered, axis=0)
    # Within a tie risk(k) = (wrong + rate * (k - covered)) / k, whose sum over k takes harmonic numbers.
    rate = np.nan_to_num(ratio(new_wrong, new))
    size = int(covered[-1].max(initial=0.0))
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, size + 1))])[covered.astype(np.int64)]
    sums = rate * new + (wrong[:-1] - rate * covered[:-1]) * np.diff(harmonic, axis=0)
    return ratio(sums.sum(axis=0), covered[-1])


def _sum_by_run(weights: Floats, run: Labels, count: int) -> Floats:
    """Sums (count, B) of the rows (n, B) of each run; run: (n,) rising."""
    sums = np.zeros((count, weights.shape[1]))
    runs, starts = np.unique(run, return_index=True)
    if len(runs):
        sums[runs] = np.add.reduceat(weights, starts, axis=0)
    return sums


def _from_zero(cumulated: Floats) -> Floats:
    return np.concatenate([np.zeros((1, cumulated.shape[1])), cumulated])


def _share_of_last(cumulated: Floats) -> Floats:
    values = _from_zero(cumulated)
    return ratio(values, np.broadcast_to(values[-1], values.shape))


def _best_where(values: Floats, limited: Floats, level: float) -> Floats:
    # nan is never above the level; an empty side gives nan in either of the two.
    best = np.where(limited >= level, values, -1.0).max(axis=0)
    return np.where(np.isnan(values[0] + limited[0]), np.nan, best)


def _best_threshold(counts: CountsAbove, values: Floats, limited: Floats, level: float) -> float | None:
    if np.isnan(values[0] + limited[0]):
        return None
    place = int(np.where(limited >= level, values, -1.0).argmax())
    return float(counts.thresholds[place - 1] if place else np.nextafter(counts.highest, np.inf))


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most CURVE_POINTS of the points, evenly spaced along the curve, both ends among them."""
    if len(x) <= CURVE_POINTS:
        return x, y
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    places = np.searchsorted(along, np.linspace(0.0, along[-1], CURVE_POINTS - 1))
    places = np.unique(np.append(places.clip(max=len(x) - 1), len(x) - 1))
    return x[places], y[places]
