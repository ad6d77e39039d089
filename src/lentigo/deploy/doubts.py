"""Why no answer should be given to an image, in plain words: the abstain rule's and the outlier limit's reasons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lentigo.deploy.exported import OutlierLimit, VariantName
from lentigo.evaluation.calibration import Calibration, Decisions, confidence_sizes
from lentigo.evaluation.selective import AbstainRule

Reasons = tuple[str, ...]


def rule_doubts(found: Decisions, calibration: Calibration | None, variant: VariantName, views: int) -> list[Reasons]:
    """For each image the reason why the abstain rule does not accept it; empty where it does."""
    if calibration is None:
        unknown = f"not calibrated for {variant} with {views} view{'s' if views > 1 else ''}"
        return [(unknown,)] * len(found.probs)
    confidence, sizes = confidence_sizes(found.probs, found.sets["class_conditional"])
    rules = calibration.rules
    rule = rules["set_size" if rules["confidence"].limit is None else "confidence"]
    accepted = found.accepted[rule.kind]
    return [() if accepted[row] else (_reason(rule, confidence[row], sizes[row]),) for row in range(len(found.probs))]


def outlier_doubts(
    distances: NDArray[np.float32] | None, limit: OutlierLimit | None, count: int
) -> list[Reasons | None]:
    """For each of `count` images the reason why it is called one of another kind; empty where it is not, None where
    that is unknown."""
    if limit is None or distances is None:
        return [None] * count
    return [
        (f"image of another kind: {limit.describe(distance)}",) if distance > limit.threshold else ()
        for distance in distances.tolist()
    ]


def _reason(rule: AbstainRule, confidence: float, size: int) -> str:
    if rule.limit is None:
        return f"no rule for abstaining could be found on val: {rule.reason}"
    if rule.kind == "confidence":
        return f"confidence {confidence:.3f} is below {rule.limit:.3f}"
    return f"{size} classes in the set; 1 to {rule.limit:.0f} are accepted"
