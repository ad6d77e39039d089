"""Intervals of any score: Wilson's for proportions of independent images, the lesion bootstrap for everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import DataError
from lentigo.evaluation.metrics import (
    CONFIDENCE,
    Estimate,
    Floats,
    Groups,
    Labels,
    percentile_interval,
    ratio,
    resample_weights,
)

Rows = NDArray[np.bool_]
ScoreFunction = Callable[[Floats], Mapping[str, Floats]]
"""Weights (N, B) to named scores whose first axis is B; nan where undefined."""
Share = tuple[Rows, Rows]
"""The images that count as hits, and the cases among which they are counted; (N,) bool each."""
LESION_BOOTSTRAP = "95% lesion-cluster bootstrap"
PROPORTION_INTERVAL = "95% Wilson where each case is of another lesion, else 95% lesion-cluster bootstrap"


def wilson_interval(hits: int, n: int) -> tuple[float | None, float | None]:
    """The 95% score interval of a proportion of `n` independent images (Wilson, JASA 22, 1927); None for n = 0.

    Unlike the bootstrap it says something at 0 and at 1, and it holds for small n (Brown, Cai & DasGupta, Stat.
    Sci. 16(2), 2001). Images of one lesion are not independent: there it is too narrow.

    Raises:
        DataError: where hits are not in 0..n.
    """
    if not 0 <= hits <= n:
        raise DataError(f"expected hits in 0..{n}; found {hits}", "Count hits among the cases only.")
    if n == 0:
        return None, None
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2.0)
    share, shrink = hits / n, 1.0 + z**2 / n
    middle = (share + z**2 / (2 * n)) / shrink
    half = z / shrink * (share * (1.0 - share) / n + z**2 / (4 * n**2)) ** 0.5
    # At 0 and n hits the bound is 0 or 1 exactly; rounding would leave 1e-17.
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)


def wilson_estimate(hits: int, n: int) -> Estimate:
    """A proportion with its Wilson interval; None where n is 0."""
    return Estimate(hits / n if n else None, *wilson_interval(hits, n), n)


def proportions(
    shares: Mapping[str, Share], groups: Groups, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Each share of hits among its cases, with the interval that PROPORTION_INTERVAL names; n counts the cases.

    Where no lesion has two images among the cases both intervals are valid, and Wilson's is the better one at small
    n and at 0 or 1. Else it would take near copies for evidence. All shares are resampled at once.
    """
    lesion = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)[1]
    found = {
        name: wilson_estimate(int((hits & cases).sum()), int(cases.sum()))
        for name, (hits, cases) in shares.items()
        if len(np.unique(lesion[cases])) == cases.sum()
    }
    clustered = {name: share for name, share in shares.items() if name not in found}
    if clustered:
        hits = np.stack([hits & cases for hits, cases in clustered.values()], axis=1).astype(np.float64)
        cases = np.stack([cases for _, cases in clustered.values()], axis=1).astype(np.float64)

        def score(weights: Floats) -> dict[str, Floats]:
            return {"share": ratio(weights.T @ hits, weights.T @ cases)}

        drawn = bootstrap(score, groups, resamples=resamples, seed=seed)
        found |= {name: drawn.estimate("share", share[1], k) for k, (name, share) in enumerate(clustered.items())}
    return found


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Scores of all images and of every resample of lesions.

    point: name -> (1, ...); samples: name -> (B, ...); group: (N,) int64, the lesion's number of each image.
    """

    point: Mapping[str, Floats]
    samples: Mapping[str, Floats]
    group: Labels

    def estimate(self, name: str, rows: Rows, *index: int, centred: bool = False) -> Estimate:
        """One score with its interval; `rows` (N,) bool are the images that it rests on, `index` its place.

        No interval where the score is undefined, rests on fewer than two lesions, or all resamples agree.
        `centred`: for a score >= 0 that resampling itself makes larger (a sum of distances): the resamples' mean
        excess over the value is taken off, or the interval would lie above the value.
        """
        n, value = int(rows.sum()), float(self.point[name][(0, *index)])
        if np.isnan(value):
            return Estimate(None, None, None, n)
        if len(np.unique(self.group[rows])) < 2:
            return Estimate(value, None, None, n)
        place: tuple[Any, ...] = (slice(None), *index)
        samples = self.samples[name][place]
        if centred and len(samples):
            samples = np.maximum(samples - (np.nanmean(samples) - value), 0.0)
        low, high = percentile_interval(samples)
        return Estimate(value, low, high, n)


def bootstrap(
    score: ScoreFunction, groups: Groups, *, image_weights: Floats | None = None, resamples: int = 2000, seed: int = 0
) -> Bootstrap:
    """Run `score` once on all images and once on every resample of lesions.

    image_weights: (N,) what an image counts where it does not count once.
    """
    base = np.ones((len(groups), 1)) if image_weights is None else image_weights[:, None]
    point = score(base)
    chunks = [score(weights * base) for weights in resample_weights(groups, resamples, seed)]
    samples = {name: np.concatenate([values[:0], *(one[name] for one in chunks)]) for name, values in point.items()}
    group = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
    return Bootstrap(point, samples, group)


def mean_estimate(values: Floats, groups: Groups, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean of the defined values (N,) with its lesion-bootstrap interval; n counts the defined ones."""
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)

    def mean(weights: Floats) -> dict[str, Floats]:
        return {"mean": ratio(filled @ weights, defined.astype(np.float64) @ weights)}

    return bootstrap(mean, groups, resamples=resamples, seed=seed).estimate("mean", defined)
