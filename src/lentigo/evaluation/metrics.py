"""Scores of a classifier and their lesion-cluster bootstrap intervals, as pure functions of arrays.

Every score is a function of a *weighted* table of images. The point estimate weighs each image once, a
bootstrap resample weighs it by how often its lesion was drawn; both go through the same code, all resamples
at once.

Shapes used throughout: N images, C classes, B resamples.

- labels: (N,) int64 in 0..C-1;
- probs: (N, C) float64, rows sum to 1; the answer is the argmax, at a tie the lower class number;
- weights: (N, B) float64, >= 0;
- an undefined score is nan inside this module and None in an `Estimate`; it is never 0 or 1 by convention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import DataError

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Groups = Sequence[str] | NDArray[np.str_]

CONFIDENCE = 0.95
_CELLS_PER_CHUNK = 2_000_000
"""Weights held at once (16 MB): a chunk of resamples stays near the cache, memory does not grow with B."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its 95% interval.

    `value` is None where the score is undefined, the bounds are None where there is no interval (undefined,
    fewer than two lesions to resample, or all resamples agree). `n` counts the images that it rests on:
    all for overall scores; those of the class for recall, answered as the class for precision, either for F1;
    for AUC the rarer of the class and the rest.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of B weightings at once; nan where undefined.

    confusion: (B, C, C), rows are true classes; overall: name -> (B,); per_class: name -> (B, C).
    """

    confusion: Floats
    overall: Mapping[str, Floats]
    per_class: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Estimates:
    """Point scores with intervals.

    overall: name -> one; per_class: name -> C of them; confusion: (C, C) int64, rows are true classes.
    """

    overall: Mapping[str, Estimate]
    per_class: Mapping[str, tuple[Estimate, ...]]
    confusion: NDArray[np.int64]


def check_inputs(labels: Labels, probs: Floats, groups: Groups) -> None:
    """Raise DataError where shapes, labels or probabilities are not those of N images and C classes."""
    if labels.ndim != 1 or probs.ndim != 2 or not len(labels) == len(probs) == len(groups):
        raise DataError(
            "expected labels (N,), probs (N, C) and N groups; "
            f"found {labels.shape}, {probs.shape} and {len(groups)} groups",
            "Pass columns of one Predictions table.",
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= probs.shape[1]):
        raise DataError(
            f"expected labels in 0..{probs.shape[1] - 1}; found {labels.min()}..{labels.max()}",
            "Use the labels of lentigo.core.taxonomy.",
        )
    if not ((probs >= 0).all() and np.allclose(probs.sum(axis=1), 1.0, atol=1e-6)):
        raise DataError(
            "expected probabilities: finite, not negative, rows that sum to 1; found other numbers",
            "Apply softmax to logits first (`Predictions.probs`).",
        )


def confusion_matrix(labels: Labels, answers: Labels, num_classes: int, weights: Floats | None = None) -> Floats:
    """Weighted confusion matrices (B, C, C), rows true and columns answered; B = 1 without weights."""
    if weights is None:
        weights = np.ones((len(labels), 1))
    one_hot = np.zeros((len(labels), num_classes * num_classes))
    one_hot[np.arange(len(labels)), labels * num_classes + answers] = 1.0
    # One matrix product counts every cell of every resample; small integers in float64 stay exact.
    return (weights.T @ one_hot).reshape(-1, num_classes, num_classes)


def weighted_auc(positive: NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve per weighting, (B,), ties counted half; nan without positives or negatives.

    positive: (N,) bool; scores: (N,), higher means more positive; weights: (N, B).
    Mann-Whitney statistic with midranks (Hanley & McNeil, Radiology 143, 1982), sorted once for all
    weightings: a positive at score s beats the weight of negatives below s, plus half of that at s.
    """
    negative_order = np.flatnonzero(~positive)[np.argsort(scores[~positive], kind="stable")]
    negative_scores = scores[negative_order]
    below = np.zeros((len(negative_order) + 1, weights.shape[1]))
    np.cumsum(weights[negative_order], axis=0, out=below[1:])
    positive_scores, positive_weights = scores[positive], weights[positive]
    lower = below[np.searchsorted(negative_scores, positive_scores, side="left")]
    upper = below[np.searchsorted(negative_scores, positive_scores, side="right")]
    wins = 0.5 * np.einsum("nb,nb->b", positive_weights, lower + upper)
    return ratio(wins, positive_weights.sum(axis=0) * below[-1])


def class_scores(confusion: Floats) -> dict[str, Floats]:
    """Precision, recall and F1 of each class, (B, C) each, from confusion matrices (B, C, C).

    Precision is undefined without answers of the class, recall without images of it, F1 without either.
    """
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    support, answered = confusion.sum(axis=2), confusion.sum(axis=1)
    return {
        "precision": ratio(hits, answered),
        "recall": ratio(hits, support),
        "f1": ratio(2.0 * hits, support + answered),
    }


def overall_scores(confusion: Floats) -> dict[str, Floats]:
    """Scores of whole confusion matrices (B, C, C), (B,) each.

    - accuracy; balanced_accuracy: mean recall over the classes that have images (Brodersen et al., ICPR
      2010).
    - macro_*: mean over the classes that occur, as truth or as answer; weighted_*: mean weighted by images
      per class. Here alone an undefined part counts as 0, which is scikit-learn's default
      (`zero_division=0`). So macro_recall is below balanced_accuracy where a class is answered that has no
      image.
    """
    support, answered = confusion.sum(axis=2), confusion.sum(axis=1)
    total = support.sum(axis=1)
    parts = class_scores(confusion)
    scores = {
        "accuracy": ratio(np.trace(confusion, axis1=1, axis2=2), total),
        "balanced_accuracy": mean_where(parts["recall"], support > 0),
    }
    occurs = (support > 0) | (answered > 0)
    for name, part in parts.items():
        scores[f"macro_{name}"] = mean_where(np.nan_to_num(part), occurs)
    for name, part in parts.items():
        scores[f"weighted_{name}"] = ratio((np.nan_to_num(part) * support).sum(axis=1), total)
    return scores


def log_losses(labels: Labels, probs: Floats) -> Floats:
    """Negative natural logarithm of the true class's probability per image, (N,), in nats.

    Clipped to [eps, 1 - eps] of float64, as scikit-learn does: one certain error costs 36.
    """
    eps = np.finfo(np.float64).eps
    losses: Floats = -np.log(np.clip(probs[np.arange(len(labels)), labels], eps, 1.0 - eps))
    return losses


def score(labels: Labels, probs: Floats, weights: Floats | None = None) -> Scores:
    """Every score of every weighting; without weights one weighting that counts each image once."""
    if weights is None:
        weights = np.ones((len(labels), 1))
    num_classes = probs.shape[1]
    confusion = confusion_matrix(labels, probs.argmax(axis=1), num_classes, weights)
    auc = np.stack([weighted_auc(labels == c, probs[:, c], weights) for c in range(num_classes)], axis=1)
    overall = overall_scores(confusion)
    overall["macro_auc"] = mean_where(auc, ~np.isnan(auc))
    overall["log_loss"] = ratio(log_losses(labels, probs) @ weights, weights.sum(axis=0))
    return Scores(confusion, overall, {**class_scores(confusion), "auc": auc})


def resample_weights(groups: Groups, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Weights (N, chunk) of a lesion-cluster bootstrap, in chunks that add up to `resamples` columns.

    Each column draws as many lesions as there are, with replacement; an image weighs as often as its lesion
    was drawn. Images of one lesion are near copies: resampling images would make the interval too narrow
    (Field & Welsh, J. R. Stat. Soc. B 69, 2007). The draw depends on the seed and the lesion ids, not on the
    order of rows.
    """
    names, group_of_image = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    count = len(names)
    generator = np.random.default_rng(seed)
    chunk = max(1, _CELLS_PER_CHUNK // max(len(groups), 1))
    for start in range(0, resamples if count else 0, chunk):
        columns = min(chunk, resamples - start)
        draws = generator.integers(count, size=(columns, count)) + np.arange(columns)[:, None] * count
        times = np.bincount(draws.ravel(), minlength=columns * count).reshape(columns, count)
        yield np.ascontiguousarray(times.T, dtype=np.float64)[group_of_image]


def percentile_interval(samples: Floats) -> tuple[float | None, float | None]:
    """The central 95% of resampled scores (B,), leaving out resamples in which the score is undefined.

    None where all agree: the bootstrap of 0 hits in 15 is [0, 0], which claims a certainty that is not there.
    """
    defined = samples[~np.isnan(samples)]
    if not len(defined) or np.ptp(defined) == 0.0:
        return None, None
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return float(low), float(high)


def estimate(labels: Labels, probs: Floats, groups: Groups, *, resamples: int = 2000, seed: int = 0) -> Estimates:
    """Every score with its lesion-cluster bootstrap interval.

    The percentile interval of a class with few lesions is too narrow: read it together with n. There is none
    where a score rests on fewer than two lesions or all resamples agree (a recall of 0 or 1).

    Raises:
        DataError: where the arrays do not fit each other.
    """
    check_inputs(labels, probs, groups)
    point = score(labels, probs)
    chunks = [score(labels, probs, weights) for weights in resample_weights(groups, resamples, seed)]
    n_images, n_lesions = _evidence(labels, probs.argmax(axis=1), groups, probs.shape[1])

    def one(value: float, samples: list[Floats], n: int, lesions: int) -> Estimate:
        if np.isnan(value):
            return Estimate(None, None, None, n)
        low, high = percentile_interval(np.concatenate(samples)) if samples and lesions > 1 else (None, None)
        return Estimate(float(value), low, high, n)

    lesions_in_all = len(set(groups))
    overall = {
        name: one(values[0], [chunk.overall[name] for chunk in chunks], len(labels), lesions_in_all)
        for name, values in point.overall.items()
    }
    per_class = {
        name: tuple(
            one(values[0, c], [chunk.per_class[name][:, c] for chunk in chunks], images, lesions)
            for c, (images, lesions) in enumerate(zip(n_images[name], n_lesions[name], strict=True))
        )
        for name, values in point.per_class.items()
    }
    return Estimates(overall, per_class, np.rint(point.confusion[0]).astype(np.int64))


def _evidence(
    labels: Labels, answers: Labels, groups: Groups, num_classes: int
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Images and lesions that each class score rests on: name -> C counts, twice.

    The counts are those of `Estimate.n`; a 0 says why a score is undefined.
    """
    names = np.asarray(groups, dtype=np.str_)
    images: dict[str, list[int]] = {"precision": [], "recall": [], "f1": [], "auc": []}
    lesions: dict[str, list[int]] = {name: [] for name in images}
    for c in range(num_classes):
        truth, answer = labels == c, answers == c
        rarer = rarer_side(truth)
        for name, rows in (("precision", answer), ("recall", truth), ("f1", truth | answer), ("auc", rarer)):
            images[name].append(int(rows.sum()))
            lesions[name].append(len(np.unique(names[rows])))
    return images, lesions


def rarer_side(positive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The positive rows (N,) or the others, whichever are fewer: what an AUC of the two rests on."""
    return positive if 2 * positive.sum() <= len(positive) else ~positive


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, nan where the denominator is 0."""
    undefined = np.full(np.shape(denominator), np.nan)
    result: Floats = np.divide(numerator, denominator, out=undefined, where=denominator > 0)
    return result


def mean_where(values: Floats, use: NDArray[np.bool_]) -> Floats:
    """Mean over the last axis of the values in use, nan where none is."""
    return ratio(np.where(use, values, 0.0).sum(axis=-1), use.sum(axis=-1).astype(np.float64))
