"""Paired tests of two or more systems, from their predictions alone.

An arm is a system: K trainings, seed by seed, predicting the same N images. Its score is the mean over its
trainings. The difference of two arms is tested by a paired bootstrap: each of B resamples draws lesions with
replacement, the same for all arms and trainings, and where K > 1 trainings too, so that the interval speaks of
other lesions and of other seeds (resampling both crossed factors: Owen, Ann. Appl. Stat. 1(2), 2007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.predictions import Predictions
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.evaluation.arms import Aligned, align
from lentigo.evaluation.metrics import Floats, percentile_interval, resample_weights, score

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "log_loss")
LOWER_IS_BETTER = frozenset({"log_loss"})
LEVEL = 0.05
_ROUNDING = 1e-12
"""A resampled difference below this is a tie: sums in another order differ in the last digits."""

Finding = Literal["better", "worse", "no difference shown", "undefined"]


class Difference(BaseModel):
    """One metric of two arms: `value` is other minus baseline, each the mean over its trainings.

    `p` is two-sided, `p_holm` corrected over the arms compared with the baseline. Bounds and p are None where the
    metric is undefined, where there are fewer than two lesions, or where all resamples agree (p is 1 if on 0).
    `non_inferior` is `not_worse` at the comparison's margin. `finding` is other against baseline, at p_holm < 0.05.
    """

    model_config = ConfigDict(frozen=True)

    baseline: float | None
    other: float | None
    value: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    p_holm: float | None
    lower_is_better: bool
    non_inferior: bool | None
    finding: Finding

    def not_worse(self, margin: float = 0.01) -> bool | None:
        """Whether the whole 95% interval lies on the good side of `margin`, in the metric's unit; None without one.

        That is a one-sided test at 2.5% (Piaggio et al., JAMA 308(24), 2012, the CONSORT extension for
        non-inferiority). "Worse" is higher for the log loss and lower for all others.
        """
        return _not_worse(self.ci_low, self.ci_high, margin, self.lower_is_better)


class McNemar(BaseModel):
    """Images that one arm alone answers right, and the exact two-sided p of an even split between the two.

    With several trainings the answers are those of each arm's mean probabilities. Every image counts as
    independent: `one_image_per_lesion` is False where that is not so and p is too small.
    """

    model_config = ConfigDict(frozen=True)

    baseline_only: int
    other_only: int
    p: float
    one_image_per_lesion: bool


class Comparison(BaseModel):
    """One arm against the baseline: metric -> difference, and McNemar's test of right and wrong answers."""

    model_config = ConfigDict(frozen=True)

    baseline: str
    other: str
    metrics: dict[str, Difference]
    mcnemar: McNemar


class Comparisons(BaseModel):
    """Every arm against the first one. `metric` is the one to decide by; the others stand beside it, uncorrected."""

    model_config = ConfigDict(frozen=True)

    split: str
    metric: str
    n_images: int
    n_lesions: int
    n_seeds: int
    paired_seeds: bool
    resamples: int
    seed: int
    margin: float
    interval: str
    comparisons: tuple[Comparison, ...]
    synthetic: bool = False

    @property
    def notice(self) -> str:
        """What every surface must print beside scores of drawings; empty for photographs."""
        return SYNTHETIC_NOTICE if self.synthetic else ""

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return self.model_dump(mode="json")


def compare(
    arms: Mapping[str, Sequence[Predictions]],
    *,
    split: str,
    metric: str = "balanced_accuracy",
    margin: float = 0.01,
    paired_seeds: bool = True,
    resamples: int = 2000,
    seed: int = 0,
    synthetic: bool = False,
) -> Comparisons:
    """Test every arm against the first. An arm is a list of tables, one a training, in the same order of seeds.

    `paired_seeds`: training k of all arms shares something (a parent, a seed), so resamples draw the same k in
    all; otherwise each arm draws its own.

    Raises:
        ConfigError: for an unknown metric or a margin that is not positive.
        DataError: where the tables are not of the same images, labels and lesions.
    """
    if metric not in METRICS:
        raise ConfigError(f"expected a metric of {', '.join(METRICS)}; found {metric!r}", "Pass one of these.")
    if not margin > 0.0:
        raise ConfigError(f"expected a margin above 0; found {margin}", "The default is 0.01.")
    aligned = align(arms)
    samples = resampled_scores(aligned, resamples=resamples, seed=seed, paired_seeds=paired_seeds)
    points = {name: _mean_scores(aligned, name) for name in aligned.probs}
    n_lesions = len(set(aligned.lesion_id))
    baseline, *others = aligned.probs
    tested: dict[str, dict[str, Difference]] = {other: {} for other in others}
    for name in METRICS:
        values = {other: (points[baseline][name], points[other][name]) for other in others}
        drawn = {other: _ties_to_zero(samples[other][name] - samples[baseline][name]) for other in others}
        p_values = {other: bootstrap_p(drawn[other]) if n_lesions > 1 else None for other in others}
        # An undefined p stays in the family: leaving it out would make the correction of the others milder.
        corrected = dict(zip(others, holm([1.0 if p is None else p for p in p_values.values()]), strict=True))
        for other in others:
            tested[other][name] = _difference(
                name, *values[other], drawn[other], p_values[other], corrected[other], margin
            )
    return Comparisons(
        split=split,
        metric=metric,
        n_images=len(aligned.image_id),
        n_lesions=n_lesions,
        n_seeds=aligned.n_seeds,
        paired_seeds=paired_seeds,
        resamples=resamples,
        seed=seed,
        margin=margin,
        interval="95% paired bootstrap of lesions" + (" and trainings" if aligned.n_seeds > 1 else ""),
        comparisons=tuple(
            Comparison(
                baseline=baseline, other=other, metrics=tested[other], mcnemar=_mcnemar_of(aligned, baseline, other)
            )
            for other in others
        ),
        synthetic=synthetic,
    )


def resampled_scores(
    aligned: Aligned, *, resamples: int, seed: int, paired_seeds: bool = True
) -> dict[str, dict[str, Floats]]:
    """Arm -> metric -> (B,): the arm's mean score in every resample of lesions and trainings."""
    scores = {arm: {name: np.full(resamples, np.nan) for name in METRICS} for arm in aligned.probs}
    times = {
        arm: seed_weights(aligned.n_seeds, resamples, seed, 0 if paired_seeds else number)
        for number, arm in enumerate(aligned.probs)
    }
    start = 0
    for weights in resample_weights(aligned.lesion_id, resamples, seed):
        columns = slice(start, start + weights.shape[1])
        for arm, trainings in aligned.probs.items():
            overall = [score(aligned.label, probs, weights).overall for probs in trainings]
            for name in METRICS:
                stacked = np.stack([one[name] for one in overall])
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


def bootstrap_p(differences: Floats) -> float | None:
    """Two-sided p of no difference, from resampled differences (B,): 2 min(share <= 0, share >= 0).

    This asks at which level the percentile interval would just touch 0 (Efron & Tibshirani, An Introduction to
    the Bootstrap, 1993, section 15.4). One is added to both counts, so that p is never 0 (Phipson & Smyth, Stat.
    Appl. Genet. Mol. Biol. 9(1), 2010): the least p is 2 / (B + 1). None without a defined resample, or where
    all agree on a difference that is not 0: then the resamples cannot tell how sure that is.
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined) or (np.ptp(defined) == 0.0 and defined[0] != 0.0):
        return None
    fewer = min(np.count_nonzero(defined <= 0.0), np.count_nonzero(defined >= 0.0))
    return float(min(1.0, 2.0 * (fewer + 1) / (len(defined) + 1)))


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Exact two-sided p of McNemar's test (Psychometrika 12, 1947): a fair coin gave so uneven a split, or more so.

    first_only, second_only: images that one of two systems alone answers right.
    """
    count, fewer = first_only + second_only, min(first_only, second_only)
    term, total = 1, 0
    for i in range(fewer + 1):
        total += term
        term = term * (count - i) // (i + 1)
    share: float = 2 * total / 2**count  # integers divide correctly rounded, however large
    return min(1.0, share)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values, in their order (Scand. J. Stat. 6, 1979).

    The smallest is multiplied by the size m of the family, the next by m - 1 and so on; none falls below a
    smaller one's result or rises above 1.

    Raises:
        DataError: where a number is no p-value.
    """
    if not all(0.0 <= p <= 1.0 for p in p_values):
        raise DataError(f"expected p-values in 0..1; found {list(p_values)}", "Leave undefined ones out.")
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _mean_scores(aligned: Aligned, arm: str) -> dict[str, float]:
    overall = [score(aligned.label, probs).overall for probs in aligned.probs[arm]]
    return {name: float(np.mean([one[name][0] for one in overall])) for name in METRICS}


def _ties_to_zero(differences: Floats) -> Floats:
    return np.where(np.abs(differences) < _ROUNDING, 0.0, differences)


def _difference(
    name: str, baseline: float, other: float, samples: Floats, p: float | None, p_holm: float, margin: float
) -> Difference:
    value = float(_ties_to_zero(np.asarray(other - baseline)))
    low, high = percentile_interval(samples) if p is not None else (None, None)
    lower_is_better = name in LOWER_IS_BETTER
    finding: Finding = "no difference shown"
    if p is None:
        finding = "undefined"
    elif p_holm < LEVEL and value != 0.0:
        finding = "better" if (value < 0.0) == lower_is_better else "worse"
    return Difference(
        baseline=_number(baseline),
        other=_number(other),
        value=_number(value),
        ci_low=low,
        ci_high=high,
        p=p,
        p_holm=None if p is None else p_holm,
        lower_is_better=lower_is_better,
        non_inferior=_not_worse(low, high, margin, lower_is_better),
        finding=finding,
    )


def _not_worse(low: float | None, high: float | None, margin: float, lower_is_better: bool) -> bool | None:
    if low is None or high is None:
        return None
    return (-high if lower_is_better else low) > -margin


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _mcnemar_of(aligned: Aligned, baseline: str, other: str) -> McNemar:
    right = [np.mean(aligned.probs[arm], axis=0).argmax(axis=1) == aligned.label for arm in (baseline, other)]
    baseline_only, other_only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return McNemar(
        baseline_only=baseline_only,
        other_only=other_only,
        p=mcnemar_p(baseline_only, other_only),
        one_image_per_lesion=len(set(aligned.lesion_id)) == len(aligned.lesion_id),
    )
