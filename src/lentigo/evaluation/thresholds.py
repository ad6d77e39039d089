"""Thresholds on calibrated scores that are chosen on val and then frozen."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from lentigo.evaluation.clinical import threshold_name
from lentigo.evaluation.clinical_results import Goal
from lentigo.evaluation.curves import counts_above, threshold_at_sensitivity, threshold_at_specificity
from lentigo.evaluation.intervals import Rows
from lentigo.evaluation.metrics import Floats


class FrozenThreshold(BaseModel):
    """A threshold on a calibrated score of `clinical.QUESTIONS`; an image at or above it is positive.

    It reaches `level` on val itself: `detected` of `n_positive` are positive there, `passed` of `n_negative` are
    not. These counts flatter; other rows say what it achieves. Without a threshold `reason` says why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    question: str
    goal: Goal
    level: float
    threshold: float | None
    n_positive: int
    n_negative: int
    detected: int | None = None
    passed: int | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """The key that `clinical.judge_clinically` knows it by."""
        return threshold_name(self.question, self.goal, self.level)


def fit_threshold(positive: Rows, scores: Floats, *, question: str, goal: Goal, level: float) -> FrozenThreshold:
    """The threshold that reaches `level` on these images and gives away least of the other side.

    positive: (N,) bool; scores: (N,) in 0..1. Images of one score fall on one side together, so the level may be
    overshot. The threshold is put in the middle between the two scores that it parts (0 and 1 where there is none):
    one that equals an image's score would turn with the last digit of another runtime.
    """
    counts = counts_above(positive, scores, np.ones((len(scores), 1)))
    found = (threshold_at_specificity if goal == "specificity" else threshold_at_sensitivity)(counts, level)
    hits, others = scores[positive], scores[~positive]
    threshold, reason = None, ""
    if found is None:
        reason = f"val has {len(hits)} images that are {question} and {len(others)} that are not"
    else:
        below, above = scores[scores < found].max(initial=0.0), scores[scores >= found].min(initial=1.0)
        middle = float((below + above) / 2.0)
        if below < 1.0:
            threshold = middle if middle > below else float(above)  # neighbouring numbers have none between them
        else:
            reason = "too many images that are not have the score 1"
    return FrozenThreshold(
        question=question,
        goal=goal,
        level=level,
        threshold=threshold,
        n_positive=len(hits),
        n_negative=len(others),
        detected=None if threshold is None else int((hits >= threshold).sum()),
        passed=None if threshold is None else int((others < threshold).sum()),
        reason=reason,
    )
