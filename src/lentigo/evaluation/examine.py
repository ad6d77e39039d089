"""Everything that is said of a split beyond its scores: clinical questions, calibration, sets, abstaining, subgroups.

On val, where the calibration is fitted, each image gets what was fitted without its lesion; on test all comes frozen
from val. A run without a calibration is examined on the plain softmax, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from lentigo.core.predictions import Predictions
from lentigo.data.catalog import Row
from lentigo.evaluation.calibration import Calibration, Decisions
from lentigo.evaluation.clinical import judge_clinically, judge_reliability
from lentigo.evaluation.clinical_results import ClinicalJudgement, Reliability
from lentigo.evaluation.conformal import Kind, SetJudgement, judge_sets
from lentigo.evaluation.fit_calibration import cross_fitted
from lentigo.evaluation.selective import RuleJudgement, RuleKind, judge_rule
from lentigo.evaluation.subgroups import SubgroupAudit, judge_subgroups

CROSS_FITTED = "val; the calls judged here come from thresholds fitted without the image's lesion"
NOT_CHOSEN = "nothing"
_LEAST = np.finfo(np.float32).tiny
CalibratedBy = Literal["frozen from val", "cross-fitted on val", "not calibrated"]


class Examination(BaseModel):
    """One split, examined. `before` is the reliability of the plain softmax, `clinical.reliability` the calibrated one.

    `sets` and `rules` are empty for a split that is not calibrated.
    """

    model_config = ConfigDict(frozen=True)

    calibrated_by: CalibratedBy
    clinical: ClinicalJudgement
    before: Reliability | None
    sets: dict[Kind, SetJudgement]
    rules: dict[RuleKind, RuleJudgement]
    subgroups: SubgroupAudit

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return self.model_dump(mode="json")


def examine(
    predictions: Predictions,
    rows: Iterable[Row],
    *,
    split: str,
    calibration: Calibration | None,
    resamples: int = 2000,
    seed: int = 0,
    synthetic: bool = False,
) -> Examination:
    """Examine the predictions of a split; `rows` are those of the catalogue.

    Raises:
        DataError: where there are no predictions, or predicted images have no row.
    """
    how: dict[str, Any] = {"resamples": resamples, "seed": seed}
    labels, lesions = predictions.label, np.asarray(predictions.lesion_id, dtype=np.str_)
    decisions, calibrated_by = _decide(predictions, split, calibration)
    probs = predictions.probs if decisions is None else decisions.probs
    # Without a calibration there is no operating point: images must not choose what they are judged by.
    points: dict[str, Any] = {"thresholds": {}, "thresholds_from": NOT_CHOSEN}
    if decisions is not None and calibration is not None:
        points = {"thresholds": calibration.thresholds, "thresholds_from": calibration.split}
        if split == "val":
            points |= {"called": decisions.positive, "thresholds_from": CROSS_FITTED}
    calibrated = replace(predictions, logits=np.log(np.maximum(probs, _LEAST)).astype(np.float32))
    answers = probs.argmax(axis=1)
    return Examination(
        calibrated_by=calibrated_by,
        clinical=judge_clinically(labels, probs, lesions, **points, **how),
        before=judge_reliability(labels, predictions.probs, lesions, **how),
        sets={
            kind: judge_sets(labels, members, lesions, **how)
            for kind, members in (() if decisions is None else decisions.sets.items())
        },
        rules={
            kind: judge_rule(labels, answers, accepted, lesions, kind=kind, **how)
            for kind, accepted in (() if decisions is None else decisions.accepted.items())
        },
        subgroups=judge_subgroups(calibrated, rows, synthetic=synthetic, **how),
    )


def _decide(
    predictions: Predictions, split: str, calibration: Calibration | None
) -> tuple[Decisions | None, CalibratedBy]:
    if calibration is None or (split == "val" and len(set(predictions.lesion_id)) < 2):
        return None, "not calibrated"
    if split == "val":
        return cross_fitted(predictions), "cross-fitted on val"
    return calibration.decide(predictions.logits), "frozen from val"
