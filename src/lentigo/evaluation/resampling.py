"""What the arms of a comparison score, on all images and in every resample of lesions and trainings.

An arm is a system: K trainings, seed by seed. Its score is the mean over its trainings. A resample draws lesions with
replacement, the same for all arms and trainings, and where K > 1 trainings too, so that an interval speaks of other
lesions and of other seeds (resampling both crossed factors: Owen, Ann. Appl. Stat. 1(2), 2007).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lentigo.core.errors import ConfigError
from lentigo.evaluation.arms import Aligned
from lentigo.evaluation.delong import MALIGNANT, task_scores
from lentigo.evaluation.metrics import (
    Estimate,
    Floats,
    Labels,
    percentile_interval,
    rarer_side,
    resample_weights,
    score,
    weighted_auc,
)

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "malignant_auc", "log_loss")
LOWER_IS_BETTER = frozenset({"log_loss"})
ArmScores = Mapping[str, Mapping[str, Floats]]
"""Arm -> metric -> (B,) scores, nan where undefined."""


def check_metric(name: str) -> None:
    """Raise ConfigError where `name` is none of METRICS."""
    if name not in METRICS:
        raise ConfigError(f"expected a metric of {', '.join(METRICS)}; found {name!r}", "Pass one of these.")


def metric_text(name: str) -> str:
    """`macro_f1` as `macro F1`."""
    return name.replace("_", " ").replace("f1", "F1").replace("auc", "AUC")


def image_scores(labels: Labels, probs: Floats, weights: Floats | None = None) -> dict[str, Floats]:
    """METRICS of every weighting of the images, (B,) each; without weights one that counts each image once."""
    if weights is None:
        weights = np.ones((len(labels), 1))
    overall = score(labels, probs, weights).overall
    malignant = weighted_auc(*task_scores(labels, probs, MALIGNANT), weights)
    return {name: malignant if name == "malignant_auc" else overall[name] for name in METRICS}


def mean_scores(aligned: Aligned) -> dict[str, dict[str, float]]:
    """Arm -> metric -> the arm's score on all images, nan where undefined."""
    scores = {}
    for arm, trainings in aligned.probs.items():
        each = [image_scores(aligned.label, probs) for probs in trainings]
        scores[arm] = {name: float(np.mean([one[name][0] for one in each])) for name in METRICS}
    return scores


def resampled_scores(
    aligned: Aligned, *, resamples: int, seed: int, paired_seeds: bool = True
) -> dict[str, dict[str, Floats]]:
    """Arm -> metric -> (B,): the arm's mean score in every resample of lesions and trainings.

    `paired_seeds`: training k of all arms shares something (a parent, a seed), so resamples draw the same k in
    all; otherwise each arm draws its own.
    """
    scores = {arm: {name: np.full(resamples, np.nan) for name in METRICS} for arm in aligned.probs}
    times = {
        arm: seed_weights(aligned.n_seeds, resamples, seed, 0 if paired_seeds else number)
        for number, arm in enumerate(aligned.probs)
    }
    start = 0
    for weights in resample_weights(aligned.lesion_id, resamples, seed):
        columns = slice(start, start + weights.shape[1])
        for arm, trainings in aligned.probs.items():
            each = [image_scores(aligned.label, probs, weights) for probs in trainings]
            for name in METRICS:
                stacked = np.stack([one[name] for one in each])
                scores[arm][name][columns] = (times[arm][:, columns] * stacked).sum(axis=0)
        start = columns.stop
    return scores


def seed_weights(n_seeds: int, resamples: int, seed: int, stream: int = 0) -> Floats:
    """Shares (K, B) of each training in each resample; columns sum to 1.

    A resample draws K - 1 of K trainings with replacement, not K: drawing K would give a variance of the mean
    that is too small by (K - 1) / K, half of it for two seeds (Rao & Wu, JASA 83(401), 1988).
    """
    if n_seeds == 1:
        return np.ones((1, resamples))
    # The stream is one more word of the generator's seed; from 1, so that none equals the draw of lesions.
    draws = np.random.default_rng((seed, 1 + stream)).integers(n_seeds, size=(resamples, n_seeds - 1))
    shares: Floats = (draws[:, :, None] == np.arange(n_seeds)).mean(axis=1).T
    return shares


def arm_estimates(
    aligned: Aligned, points: Mapping[str, Mapping[str, float]], samples: ArmScores
) -> dict[str, dict[str, Estimate]]:
    """Arm -> metric -> the score with its interval, from `mean_scores` and `resampled_scores`.

    Of one training these are the numbers that `judge` gives with as many resamples and the same seed.
    """
    names = np.asarray(aligned.lesion_id, dtype=np.str_)
    malignant, _ = task_scores(aligned.label, next(iter(aligned.probs.values()))[0], MALIGNANT)
    rarer = rarer_side(malignant)
    everything = np.ones_like(malignant)

    def one(arm: str, name: str) -> Estimate:
        rows = rarer if name == "malignant_auc" else everything
        value, n = points[arm][name], int(rows.sum())
        if np.isnan(value):
            return Estimate(None, None, None, n)
        enough = len(np.unique(names[rows])) > 1
        low, high = percentile_interval(samples[arm][name]) if enough else (None, None)
        return Estimate(value, low, high, n)

    return {arm: {name: one(arm, name) for name in METRICS} for arm in aligned.probs}
