"""Paired tests of two or more systems, from their predictions alone.

An arm is a system: K trainings, seed by seed, predicting the same N images. The difference of two arms is tested by
a paired bootstrap of lesions and trainings (`resampling`); beside it stand McNemar's test of the answers and DeLong's
test of the AUCs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from lentigo.core.errors import ConfigError
from lentigo.core.predictions import Predictions
from lentigo.evaluation.arms import Aligned, align
from lentigo.evaluation.delong import TASKS, DeLong, delong, task_scores
from lentigo.evaluation.metrics import Floats, percentile_interval
from lentigo.evaluation.resampling import (
    LOWER_IS_BETTER,
    METRICS,
    ArmScores,
    check_metric,
    mean_scores,
    resampled_scores,
)
from lentigo.evaluation.scores import Scores
from lentigo.evaluation.significance import bootstrap_p, holm_over, mcnemar_p

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
    """One arm against the baseline: metric -> difference, McNemar's test of right and wrong answers, task -> DeLong's.

    Both tests take the mean probabilities of each arm's trainings. `delong` has one AUC per task of `delong.TASKS`.
    """

    model_config = ConfigDict(frozen=True)

    baseline: str
    other: str
    metrics: dict[str, Difference]
    mcnemar: McNemar
    delong: dict[str, DeLong]


class Comparisons(Scores):
    """Every arm against the first one. `metric` is the one to decide by; the others stand beside it, uncorrected."""

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
    check_metric(metric)
    if not margin > 0.0:
        raise ConfigError(f"expected a margin above 0; found {margin}", "The default is 0.01.")
    aligned = align(arms)
    samples = resampled_scores(aligned, resamples=resamples, seed=seed, paired_seeds=paired_seeds)
    points = mean_scores(aligned)
    baseline, *others = aligned.probs
    n_lesions = len(set(aligned.lesion_id))
    tested = {name: paired_differences(name, baseline, points, samples, n_lesions, margin) for name in METRICS}
    aucs = _delong_of(aligned, baseline, others)
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
                baseline=baseline,
                other=other,
                metrics={name: tested[name][other] for name in METRICS},
                mcnemar=_mcnemar_of(aligned, baseline, other),
                delong=aucs[other],
            )
            for other in others
        ),
        synthetic=synthetic,
    )


def paired_differences(
    name: str,
    baseline: str,
    points: Mapping[str, Mapping[str, float]],
    samples: ArmScores,
    n_lesions: int,
    margin: float = 0.01,
) -> dict[str, Difference]:
    """One metric of every other arm against the baseline, from `mean_scores` and `resampled_scores`; Holm over arms."""
    others = [arm for arm in points if arm != baseline]
    drawn = {other: _ties_to_zero(samples[other][name] - samples[baseline][name]) for other in others}
    p_values = {other: bootstrap_p(drawn[other]) if n_lesions > 1 else None for other in others}
    corrected = holm_over(p_values)
    return {
        other: _difference(
            name,
            points[baseline][name],
            points[other][name],
            drawn[other],
            p_values[other],
            corrected[other],
            margin,
        )
        for other in others
    }


def _ties_to_zero(differences: Floats) -> Floats:
    return np.where(np.abs(differences) < _ROUNDING, 0.0, differences)


def _difference(
    name: str, baseline: float, other: float, samples: Floats, p: float | None, p_holm: float | None, margin: float
) -> Difference:
    value = float(_ties_to_zero(np.asarray(other - baseline)))
    low, high = percentile_interval(samples) if p is not None else (None, None)
    lower_is_better = name in LOWER_IS_BETTER
    finding: Finding = "no difference shown"
    if p is None or p_holm is None:
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
        p_holm=p_holm,
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


def _mean_probs(aligned: Aligned, arm: str) -> Floats:
    mean: Floats = np.mean(np.stack(aligned.probs[arm]), axis=0)
    return mean


def _mcnemar_of(aligned: Aligned, baseline: str, other: str) -> McNemar:
    right = [_mean_probs(aligned, arm).argmax(axis=1) == aligned.label for arm in (baseline, other)]
    baseline_only, other_only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return McNemar(
        baseline_only=baseline_only,
        other_only=other_only,
        p=mcnemar_p(baseline_only, other_only),
        one_image_per_lesion=len(set(aligned.lesion_id)) == len(aligned.lesion_id),
    )


def _delong_of(aligned: Aligned, baseline: str, others: Sequence[str]) -> dict[str, dict[str, DeLong]]:
    """Arm -> task -> test against the baseline; Holm over the arms, for each task apart."""
    probs = {arm: _mean_probs(aligned, arm) for arm in aligned.probs}
    tests: dict[str, dict[str, DeLong]] = {other: {} for other in others}
    for task in TASKS:
        positive, expected = task_scores(aligned.label, probs[baseline], task)
        found = {
            other: delong(positive, expected, task_scores(aligned.label, probs[other], task)[1], aligned.lesion_id)
            for other in others
        }
        corrected = holm_over({other: test.p for other, test in found.items()})
        for other, test in found.items():
            tests[other][task] = test.model_copy(update={"p_holm": corrected[other]})
    return tests
