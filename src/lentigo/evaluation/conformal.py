"""Prediction sets that hold the true class with a stated probability: split-conformal prediction.

The guarantee: a set made with level alpha holds the true class of a new lesion with probability of at least
1 - alpha, on average over the draw of the calibration lesions and of the new one (Vovk et al., Algorithmic
Learning in a Random World, 2005). `class_conditional` sets promise that for the lesions of each class apart
(Vovk, Conditional validity, ACML 2012; Sadinle, Lei & Wasserman, JASA 114, 2019), `marginal` sets for the mix of
all: there the many nevi can pay for the few melanomas. It rests on exchangeable lesions: the new one comes from
where the calibration lesions came from, and those were not used to fit what gives the probabilities. It does not
speak of one given image, nor of another clinic, camera or class mix (of another mix the class-conditional sets
do). The temperature is fitted on the same val lesions; one number changes coverage hardly. The epoch was chosen on
val, too: what that does, only test shows.

Shapes: N images, C = 7 classes; labels (N,) int64; probs (N, C) float64, calibrated, rows sum to 1; sets (N, C) bool.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lentigo.core.errors import ConfigError
from lentigo.core.taxonomy import CLASS_CODES, NUM_CLASSES
from lentigo.evaluation.intervals import Rows, mean_estimate, proportions
from lentigo.evaluation.metrics import Estimate, Floats, Groups, Labels, check_inputs

Kind = Literal["class_conditional", "marginal"]

PER_CLASS = Field(min_length=NUM_CLASSES, max_length=NUM_CLASSES)
_ROUNDING = 1e-9
"""Taken off before rounding up: 10 * 0.9 may come out a hair above 9."""


class ConformalSets(BaseModel):
    """A fitted rule: a class is in the set where its probability is at least its threshold.

    `thresholds` and `n` have one number a class, in the order of the taxonomy; `n` counts the lesions that a
    threshold rests on (all of them for `marginal`). A threshold of 0 takes the class into every set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Kind
    alpha: float = Field(gt=0, lt=1)
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = PER_CLASS
    n: tuple[Annotated[int, Field(ge=0)], ...] = PER_CLASS

    @property
    def least_n(self) -> int:
        """Lesions that a class needs for a threshold of its own: with fewer, only full inclusion keeps the promise."""
        return round_up((1.0 - self.alpha) / self.alpha)

    @property
    def always_included(self) -> tuple[str, ...]:
        """Codes of the classes with fewer lesions than `least_n`: they are in every set."""
        return tuple(code for code, count in zip(CLASS_CODES, self.n, strict=True) if count < self.least_n)

    def sets(self, probs: Floats) -> Rows:
        """The sets (N, 7) bool of probs (N, 7); a set may be empty: no class is likely enough."""
        members: Rows = probs >= np.asarray(self.thresholds)
        return members


class SetJudgement(BaseModel):
    """How prediction sets did on N images.

    `coverage`: share of sets that hold the true class, also per class code; `mean_size` in classes; `size_shares[k]`:
    share of sets with k classes, k = 0..7; `single_accuracy`: share of right ones among sets of one class.
    """

    model_config = ConfigDict(frozen=True)

    n_images: int
    n_lesions: int
    coverage: Estimate
    coverage_per_class: dict[str, Estimate]
    mean_size: Estimate
    size_shares: tuple[Estimate, ...]
    single_accuracy: Estimate


def fit_sets(
    labels: Labels, probs: Floats, groups: Groups, *, kind: Kind = "class_conditional", alpha: float = 0.1
) -> ConformalSets:
    """Thresholds such that sets miss the true class of at most a share alpha of new lesions.

    The score of a lesion is 1 - p of its true class (LAC: Sadinle et al., 2019), the largest of its images where
    there are several: lesions are exchangeable, photographs of one lesion are not. Of n sorted scores the
    ceil((n + 1)(1 - alpha))-th is the bound; equal scores are within it. A class with fewer lesions than that
    (9 are needed for alpha = 0.1), or none, gets threshold 0.

    Raises:
        ConfigError: where alpha is not between 0 and 1.
        DataError: where the arrays do not fit each other.
    """
    if not 0.0 < alpha < 1.0:
        raise ConfigError(f"expected alpha between 0 and 1; found {alpha}", "0.1 asks for 90% coverage.")
    check_inputs(labels, probs, groups)
    truth, worst = _worst_of_lesion(labels, probs, groups)
    of_class = [worst[truth == c] if kind == "class_conditional" else worst for c in range(NUM_CLASSES)]
    return ConformalSets(
        kind=kind,
        alpha=alpha,
        thresholds=tuple(_least_probability(values, alpha) for values in of_class),
        n=tuple(len(values) for values in of_class),
    )


def judge_sets(labels: Labels, sets: Rows, groups: Groups, *, resamples: int = 2000, seed: int = 0) -> SetJudgement:
    """Coverage and size of sets (N, 7) that were made without these rows' labels.

    Intervals of shares are those of `intervals.proportions`, of the mean size the lesion-cluster bootstrap's.
    """
    sizes = sets.sum(axis=1)
    hit, everyone = sets[np.arange(len(labels)), labels], np.ones(len(labels), dtype=np.bool_)
    shares = {"coverage": (hit, everyone), "single": (hit, sizes == 1)}
    shares |= {f"coverage/{code}": (hit, labels == c) for c, code in enumerate(CLASS_CODES)}
    shares |= {f"size/{size}": (sizes == size, everyone) for size in range(NUM_CLASSES + 1)}
    found = proportions(shares, groups, resamples=resamples, seed=seed)
    return SetJudgement(
        n_images=len(labels),
        n_lesions=len(set(groups)),
        coverage=found["coverage"],
        coverage_per_class={code: found[f"coverage/{code}"] for code in CLASS_CODES},
        mean_size=mean_estimate(sizes.astype(np.float64), groups, resamples=resamples, seed=seed),
        size_shares=tuple(found[f"size/{size}"] for size in range(NUM_CLASSES + 1)),
        single_accuracy=found["single"],
    )


def _worst_of_lesion(labels: Labels, probs: Floats, groups: Groups) -> tuple[Labels, Floats]:
    """True class and least probability given to it, once per lesion (per label, should one lesion have two)."""
    _, lesion = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    pairs, place = np.unique(lesion * NUM_CLASSES + labels, return_inverse=True)
    worst = np.full(len(pairs), np.inf)
    np.minimum.at(worst, place, probs[np.arange(len(labels)), labels])
    return pairs % NUM_CLASSES, worst


def _least_probability(of_truth: Floats, alpha: float) -> float:
    rank = round_up((len(of_truth) + 1) * (1.0 - alpha))
    return 0.0 if rank > len(of_truth) else float(np.sort(of_truth)[len(of_truth) - rank])


def round_up(count: float) -> int:
    """The least whole number that is not below `count`, but for what floating point adds to it."""
    return math.ceil(count - _ROUNDING)
