"""What `clinical.judge_clinically` finds: frozen results, each number with its interval and n."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lentigo.evaluation.metrics import Estimate

Goal = Literal["specificity", "sensitivity"]


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class OneVersusRest(_Result):
    """One class against the rest at the argmax answer; average precision takes the class's probability."""

    n: int
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    average_precision: Estimate


class OperatingPoint(_Result):
    """Calling positive what scores `threshold` or more, chosen to reach `level` of `goal`; what was reached here.

    All is None where there is no threshold.
    """

    goal: Goal
    level: float
    threshold: float | None
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate


class BinaryQuestion(_Result):
    """A yes-or-no question, its score the summed probability of the positive classes.

    `best_at` says what the order of these images allows, the threshold free to move (also in each resample): name
    as in `threshold_name` without the question. `operating_points` say what a fixed threshold does.
    """

    n_positive: int
    n_negative: int
    auc: Estimate
    average_precision: Estimate
    brier: Estimate
    best_at: dict[str, Estimate]
    operating_points: dict[str, OperatingPoint]


class ReliabilityBin(_Result):
    """Answers of like confidence: `accuracy.n` images, mean probability of the answer, share of right answers."""

    mean_confidence: float
    accuracy: Estimate


class Reliability(_Result):
    """Brier score over all classes (0..2), expected calibration error of the answers (0..1), and its bins.

    `ece_by_chance` is what a perfectly calibrated model of the same confidences shows on average: the part of
    `ece` that is noise.
    """

    brier: Estimate
    ece: Estimate
    ece_by_chance: float
    bins: tuple[ReliabilityBin, ...]


class Decision(_Result):
    """Net benefit, in true positives per image, of acting where the malignant score reaches `threshold`.

    `act_on_none` is 0 by definition; `gain` is `model` minus the better of acting on all and on none, paired.
    """

    threshold: float
    model: Estimate
    act_on_all: Estimate
    gain: Estimate
    act_on_none: float = 0.0


class Coverage(_Result):
    """Share of wrong answers where the most confident `coverage` of the images is answered."""

    coverage: float
    risk: Estimate


class ClinicalJudgement(_Result):
    """All of the module for one set of images. `thresholds_from` says which images chose the thresholds.

    `proportion_interval` is that of sensitivity, specificity, PPV, NPV and bin accuracy at fixed answers; every
    other number has `interval`. So a class's sensitivity is its recall, with an interval that also holds at 0 and 1.
    """

    n_images: int
    n_lesions: int
    resamples: int
    seed: int
    interval: str
    proportion_interval: str
    thresholds_from: str
    per_class: dict[str, OneVersusRest]
    questions: dict[str, BinaryQuestion]
    reliability: Reliability | None
    decision_curve: tuple[Decision, ...]
    risk_coverage: tuple[Coverage, ...]
    aurc: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return self.model_dump(mode="json")
