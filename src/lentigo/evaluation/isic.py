"""Scores by the rules of ISIC 2018 Task 3, as its own scorer (isic-challenge-scoring) gives them.

- The headline is balanced multi-class accuracy: mean recall over the classes that have images. The answer is the
  highest probability; where two or more share it, the image has no answer and counts as wrong.
- Each class against the rest: AUC, the part of it beyond 80% sensitivity, average precision; and accuracy,
  sensitivity, specificity, Dice (F1), PPV, NPV of probability > 0.5.
- Images count by their weight; those of weight 0 are left out.

Where a score is undefined (no positive, no negative, nothing called), this gives None and leaves it out of the mean
over classes. The archive's scorer then puts 1 for a ratio, 0 for average precision, leaves AUC out, or stops.

Shapes: N images, C = 7 classes; labels (N,) int64; probs (N, C) float64 in 0..1, rows need not sum to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.evaluation.curves import average_precision, counts_above, partial_auc
from lentigo.evaluation.intervals import LESION_BOOTSTRAP, Bootstrap, Rows, bootstrap
from lentigo.evaluation.metrics import (
    Estimate,
    Floats,
    Groups,
    Labels,
    confusion_matrix,
    mean_where,
    overall_scores,
    rarer_side,
    ratio,
    weighted_auc,
)

CALLED_ABOVE = 0.5
AUC_BEYOND_SENSITIVITY = 0.8
IMAGE_BOOTSTRAP = "95% image bootstrap (lesions unknown; too narrow where a lesion has several images)"
CLASS_SCORES = ("auc", "auc_sens_80", "ap", "accuracy", "sensitivity", "specificity", "dice", "ppv", "npv")


class IsicJudgement(BaseModel):
    """Scores with intervals. `n_left_out` images have weight 0, `n_ties` of the others two or more highest values.

    `accuracy` is that of the answers, ties wrong. `macro` maps CLASS_SCORES to the mean over the classes where they
    are defined, `per_class` maps class codes to those of the class. `n_lesions` is None where lesions are unknown.
    `synthetic` says that the images are drawings.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    n_images: int
    n_left_out: int
    n_ties: int
    n_lesions: int | None
    resamples: int
    seed: int
    interval: str
    balanced_accuracy: Estimate
    accuracy: Estimate
    macro: dict[str, Estimate]
    per_class: dict[str, dict[str, Estimate]]
    n_per_class: dict[str, int]
    synthetic: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return self.model_dump(mode="json")


def judge_isic(
    labels: Labels,
    probs: Floats,
    *,
    weights: Floats | None = None,
    groups: Groups | None = None,
    resamples: int = 2000,
    seed: int = 0,
    synthetic: bool = False,
) -> IsicJudgement:
    """Every score with its bootstrap interval, of lesions (`groups`: N lesion ids) or else of images.

    weights: (N,), what an image counts; each counts once without them.

    Raises:
        DataError: where the arrays do not fit each other, or no image counts.
    """
    _check(labels, probs)
    weights = np.ones(len(labels)) if weights is None else weights
    counted = weights > 0.0
    if not counted.any():
        raise DataError("expected images that count; found none with a weight above 0", "Check the truth's weights.")
    names = np.arange(len(labels)).astype(np.str_) if groups is None else np.asarray(groups, dtype=np.str_)
    labels, probs, weights, names = labels[counted], probs[counted], weights[counted], names[counted]
    drawn = bootstrap(
        lambda resampled: isic_scores(labels, probs, resampled),
        names,
        image_weights=weights,
        resamples=resamples,
        seed=seed,
    )
    everyone = np.ones(len(labels), dtype=np.bool_)
    return IsicJudgement(
        n_images=len(labels),
        n_left_out=int((~counted).sum()),
        n_ties=int((_answers(probs) == probs.shape[1]).sum()),
        n_lesions=None if groups is None else len(np.unique(names)),
        resamples=resamples,
        seed=seed,
        interval=IMAGE_BOOTSTRAP if groups is None else LESION_BOOTSTRAP,
        balanced_accuracy=drawn.estimate("balanced_accuracy", everyone),
        accuracy=drawn.estimate("accuracy", everyone),
        macro={name: drawn.estimate(f"macro/{name}", everyone) for name in CLASS_SCORES},
        per_class={
            code: _class_estimates(drawn, c, labels == c, probs[:, c] > CALLED_ABOVE)
            for c, code in enumerate(CLASS_CODES)
        },
        n_per_class={code: int((labels == c).sum()) for c, code in enumerate(CLASS_CODES)},
        synthetic=synthetic,
    )


def isic_scores(labels: Labels, probs: Floats, weights: Floats) -> dict[str, Floats]:
    """Scores of every weighting: balanced_accuracy, accuracy and macro/NAME (B,), class/NAME (B, C)."""
    num_classes = probs.shape[1]
    # A tie is an answer of its own, which no image has as its class: it takes part in no recall but as a miss.
    overall = overall_scores(confusion_matrix(labels, _answers(probs), num_classes + 1, weights))
    each = [_class_scores(labels == c, probs[:, c], weights) for c in range(num_classes)]
    per_class = {name: np.stack([one[name] for one in each], axis=1) for name in CLASS_SCORES}
    return (
        {name: overall[name] for name in ("balanced_accuracy", "accuracy")}
        | {f"class/{name}": values for name, values in per_class.items()}
        | {f"macro/{name}": mean_where(values, ~np.isnan(values)) for name, values in per_class.items()}
    )


def _answers(probs: Floats) -> Labels:
    """The class of the highest probability, (N,); C where several have it."""
    highest = probs.max(axis=1, keepdims=True)
    answers: Labels = np.where((probs == highest).sum(axis=1) > 1, probs.shape[1], probs.argmax(axis=1))
    return answers


def _class_scores(positive: Rows, scores: Floats, weights: Floats) -> dict[str, Floats]:
    called, counts = scores > CALLED_ABOVE, counts_above(positive, scores, weights)
    hit, alarm = weights.T @ (positive & called), weights.T @ (~positive & called)
    miss, rest = weights.T @ (positive & ~called), weights.T @ (~positive & ~called)
    return {
        "auc": weighted_auc(positive, scores, weights),
        "auc_sens_80": partial_auc(counts, AUC_BEYOND_SENSITIVITY),
        "ap": average_precision(counts),
        "accuracy": ratio(hit + rest, hit + rest + alarm + miss),
        "sensitivity": ratio(hit, hit + miss),
        "specificity": ratio(rest, rest + alarm),
        "dice": ratio(2.0 * hit, 2.0 * hit + alarm + miss),
        "ppv": ratio(hit, hit + alarm),
        "npv": ratio(rest, rest + miss),
    }


def _class_estimates(drawn: Bootstrap, c: int, positive: Rows, called: Rows) -> dict[str, Estimate]:
    rarer = rarer_side(positive)
    rows = {
        "auc": rarer,
        "auc_sens_80": rarer,
        "ap": positive,
        "accuracy": np.ones_like(positive),
        "sensitivity": positive,
        "specificity": ~positive,
        "dice": positive | called,
        "ppv": called,
        "npv": ~called,
    }
    return {name: drawn.estimate(f"class/{name}", rows[name], c) for name in CLASS_SCORES}


def _check(labels: Labels, probs: Floats) -> None:
    if labels.ndim != 1 or probs.shape != (len(labels), len(CLASS_CODES)):
        raise DataError(
            f"expected labels (N,) and probabilities (N, {len(CLASS_CODES)}); found {labels.shape} and {probs.shape}",
            "Pass one row an image.",
        )
    if not ((probs >= 0.0) & (probs <= 1.0)).all() or not np.isin(labels, np.arange(len(CLASS_CODES))).all():
        raise DataError(
            f"expected probabilities in 0..1 and labels in 0..{len(CLASS_CODES) - 1}; found others", "Check the table."
        )
