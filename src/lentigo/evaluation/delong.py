"""DeLong's test: do two systems differ in the area under the ROC curve, on the same images?

The variance of an AUC comes from its structural components: for a positive image the share of negatives that it
beats, for a negative image the share of positives that beat it (DeLong, DeLong & Clarke-Pearson, Biometrics 44,
1988). Ranks give all components in O(N log N) (Sun & Xu, IEEE Signal Process. Lett. 21(11), 2014). Images of one
lesion are near copies and do not count as independent: their components are summed per lesion first (Obuchowski,
Biometrics 53, 1997), which is DeLong's own variance where every lesion has one image.

Unlike the bootstrap of `compare` it needs no random numbers and gives p-values of any smallness; like every normal
approximation it is rough where a class has few lesions or an AUC is close to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lentigo.core.taxonomy import CLASS_CODES, MALIGNANT_LABELS, MELANOMA_LABEL
from lentigo.evaluation.metrics import CONFIDENCE, Floats, Groups, Labels

MALIGNANT = "malignant"
MELANOMA = CLASS_CODES[MELANOMA_LABEL]
TASKS: Mapping[str, tuple[int, ...]] = {
    MALIGNANT: MALIGNANT_LABELS,
    **{code: (label,) for label, code in enumerate(CLASS_CODES)},
}
"""Name -> the labels that count as positive: all malignant classes, then each class against the rest."""
_LEAST_VARIANCE = 1e-18
"""A variance below this is that of rounding: the systems rank alike, or separate the classes completely."""


class DeLong(BaseModel):
    """Two AUCs on the same images: `value` is other minus baseline.

    `n_positive` and `n_negative` count images. AUCs are None without images of either kind; interval and p also with
    fewer than two lesions of either kind, and where the difference has no variance (p is 1 if it is 0). `p` is
    two-sided, `p_holm` corrected over the arms compared with the baseline. `one_image_per_lesion` False says that
    the variance is the one for clustered images.
    """

    model_config = ConfigDict(frozen=True)

    baseline: float | None
    other: float | None
    value: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    p_holm: float | None = None
    n_positive: int
    n_negative: int
    one_image_per_lesion: bool


def task_scores(labels: Labels, probs: Floats, task: str) -> tuple[NDArray[np.bool_], Floats]:
    """Which images are positive in a task of TASKS, (N,) bool, and their summed probability of it, (N,) in 0..1."""
    positive_labels = list(TASKS[task])
    return np.isin(labels, positive_labels), probs[:, positive_labels].sum(axis=1)


def auc_components(positive: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """Structural components of one AUC: of the m positives, (m,), and of the n negatives, (n,), each in 0..1.

    positive: (N,) bool with both kinds; scores: (N,), higher means more positive; ties count half. The mean of
    either is the AUC.
    """
    above, below = np.sort(scores[positive]), np.sort(scores[~positive])
    of_positives = _midranks(below, scores[positive]) / len(below)
    of_negatives = 1.0 - _midranks(above, scores[~positive]) / len(above)
    return of_positives, of_negatives


def auc_covariance(positive: NDArray[np.bool_], scores: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """AUCs (K,) of K systems on the same images and their covariance (K, K).

    positive: (N,) bool; scores: (K, N); groups: N lesion ids. All nan without positives or negatives; the
    covariance is nan with fewer than two lesions of either kind.
    """
    count = len(scores)
    if positive.all() or not positive.any():
        return np.full(count, np.nan), np.full((count, count), np.nan)
    names, lesion = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    components = [auc_components(positive, one) for one in scores]
    aucs = np.array([of_positives.mean() for of_positives, _ in components])
    sums: list[Floats] = []
    lesions: list[int] = []
    for side, rows in enumerate((positive, ~positive)):
        deviations = np.stack([one[side] for one in components]) - aucs[:, None]
        summed = [np.bincount(lesion[rows], weights=one, minlength=len(names)) for one in deviations / rows.sum()]
        sums.append(np.asarray(summed, dtype=np.float64))
        lesions.append(len(np.unique(lesion[rows])))
    if min(lesions) < 2:
        return aucs, np.full((count, count), np.nan)
    # A lesion with images of both kinds (a mixed class) makes positives and negatives covary.
    across = sums[0] @ sums[1].T
    covariance = _unbiased(sums[0] @ sums[0].T, lesions[0]) + _unbiased(sums[1] @ sums[1].T, lesions[1])
    covariance += _unbiased(across + across.T, len(names))
    return aucs, covariance


def delong(positive: NDArray[np.bool_], baseline: Floats, other: Floats, groups: Groups) -> DeLong:
    """Test of equal AUCs of two systems; `p_holm` is left to the caller, who knows the family.

    positive: (N,) bool; baseline, other: scores (N,), higher means more positive; groups: N lesion ids.
    """
    aucs, covariance = auc_covariance(positive, np.stack([baseline, other]), groups)
    value = float(aucs[1] - aucs[0])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1])
    low = high = p = None
    if variance > _LEAST_VARIANCE:
        error = math.sqrt(variance)
        half_width = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2.0) * error
        low, high, p = value - half_width, value + half_width, math.erfc(abs(value) / error / math.sqrt(2.0))
    elif variance == variance and value == 0.0:  # nan differs from itself: too few lesions for a variance
        p = 1.0
    return DeLong(
        baseline=_number(aucs[0]),
        other=_number(aucs[1]),
        value=_number(value),
        ci_low=low,
        ci_high=high,
        p=p,
        n_positive=int(positive.sum()),
        n_negative=int((~positive).sum()),
        one_image_per_lesion=len(set(groups)) == len(groups),
    )


def _midranks(sorted_scores: Floats, values: Floats) -> Floats:
    """How many of `sorted_scores` lie below each value, those equal to it counted half."""
    lower = np.searchsorted(sorted_scores, values, side="left").astype(np.float64)
    upper = np.searchsorted(sorted_scores, values, side="right").astype(np.float64)
    return 0.5 * (lower + upper)


def _unbiased(sums: Floats, lesions: int) -> Floats:
    return sums * (lesions / (lesions - 1))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
