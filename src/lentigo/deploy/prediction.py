"""What a model answers to one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image's answer.

    `logits`: 7, before softmax, the mean of `views`; `probs`: class code -> calibrated probability, sum 1; `label`:
    the most probable code, `confidence` its probability; `malignant_risk`, `melanoma_risk`: summed probability of the
    malignant classes and of melanoma, 0..1; `operating_points`: name of a threshold frozen on val -> called positive;
    `conformal_set`: codes, see `lentigo.evaluation.conformal`; `abstain`: whether no answer should be given, None where
    that is unknown, `abstain_reasons` say why in plain words; `quality_flags`: names of `lentigo.data.quality`;
    `outlier`: whether the image looks to the network like none of the training images, None where the model has no
    limit for that.

    Without a calibration for the variant and number of views, `probs` are the plain softmax, there are no operating
    points and no set, and the first of `abstain_reasons` says so.
    """

    name: str
    logits: tuple[float, ...]
    probs: dict[str, float]
    label: str
    confidence: float
    malignant_risk: float
    melanoma_risk: float
    operating_points: dict[str, bool]
    conformal_set: tuple[str, ...]
    abstain: bool | None
    abstain_reasons: tuple[str, ...]
    quality_flags: tuple[str, ...]
    outlier: bool | None
    model: str
    variant: str
    views: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in a fixed order: the answer first, the logits and the model last."""
        return {
            "name": self.name,
            "label": self.label,
            "confidence": self.confidence,
            "probs": dict(self.probs),
            "malignant_risk": self.malignant_risk,
            "melanoma_risk": self.melanoma_risk,
            "operating_points": dict(self.operating_points),
            "conformal_set": list(self.conformal_set),
            "abstain": self.abstain,
            "abstain_reasons": list(self.abstain_reasons),
            "quality_flags": list(self.quality_flags),
            "outlier": self.outlier,
            "logits": list(self.logits),
            "model": self.model,
            "variant": self.variant,
            "views": self.views,
        }
