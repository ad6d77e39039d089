"""From a `Predictions` table to everything that is said about it: `metrics.json` and the text report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lentigo.core.errors import DataError, first_five
from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import CLASS_CODES, CLASSES, NUM_CLASSES
from lentigo.evaluation.intervals import LESION_BOOTSTRAP
from lentigo.evaluation.metrics import Estimate, confusion_matrix, estimate, overall_scores
from lentigo.evaluation.scores import Scores


class ClassJudgement(BaseModel):
    """One class against the rest. `accuracy` is the share of its images answered right, that is recall."""

    model_config = ConfigDict(frozen=True)

    n: int
    n_lesions: int
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auc: Estimate
    accuracy: Estimate


class Baseline(BaseModel):
    """What a program scores that gives the judged split's most frequent class as every answer."""

    model_config = ConfigDict(frozen=True)

    code: str
    accuracy: float
    balanced_accuracy: float
    macro_f1: float


class Judgement(Scores):
    """All scores of one split.

    `metrics` maps accuracy, balanced_accuracy, macro_*, weighted_* and log_loss (nats) to estimates; shares
    lie in 0..1. `per_class` maps lower-case class codes. `confusion` counts images, rows true and columns
    answered, both in the order of `classes`. `synthetic` says that the images are drawings.
    """

    split: str
    n_images: int
    n_lesions: int
    resamples: int
    seed: int
    interval: str
    classes: tuple[str, ...]
    metrics: dict[str, Estimate]
    per_class: dict[str, ClassJudgement]
    confusion: tuple[tuple[int, ...], ...]
    majority_baseline: Baseline

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Judgement:
        """Read back what `as_dict` gave.

        Raises:
            DataError: where keys are missing or of another type; all of them at once.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            places = [".".join(str(part) for part in problem["loc"]) for problem in error.errors()]
            raise DataError(
                f"expected the content of a metrics.json; missing or wrong there: {first_five(places)}",
                "Write it again with `lentigo evaluate`.",
            ) from None


def judge(
    predictions: Predictions, *, split: str, resamples: int = 2000, seed: int = 0, synthetic: bool = False
) -> Judgement:
    """Score one split's predictions, every number with its n and its lesion-cluster bootstrap interval.

    Raises:
        DataError: where there are no predictions.
    """
    if not len(predictions):
        raise DataError(
            f"expected predictions of the split {split!r}; found none",
            "Check that the split has images (`lentigo data check`), then run `lentigo evaluate` again.",
        )
    labels, lesions = predictions.label, np.asarray(predictions.lesion_id, dtype=np.str_)
    found = estimate(labels, predictions.probs, lesions, resamples=resamples, seed=seed)
    per_class = {
        code: ClassJudgement(
            n=int((labels == c).sum()),
            n_lesions=len(np.unique(lesions[labels == c])),
            accuracy=found.per_class["recall"][c],
            **{name: estimates[c] for name, estimates in found.per_class.items()},
        )
        for c, code in enumerate(CLASS_CODES)
    }
    return Judgement(
        split=split,
        n_images=len(predictions),
        n_lesions=len(np.unique(lesions)),
        resamples=resamples,
        seed=seed,
        interval=LESION_BOOTSTRAP,
        classes=CLASS_CODES,
        metrics=dict(found.overall),
        per_class=per_class,
        confusion=tuple(tuple(int(count) for count in row) for row in found.confusion),
        majority_baseline=_majority_baseline(labels),
        synthetic=synthetic,
    )


def _majority_baseline(labels: np.ndarray[Any, np.dtype[np.int64]]) -> Baseline:
    majority = int(np.bincount(labels, minlength=NUM_CLASSES).argmax())
    scores = overall_scores(confusion_matrix(labels, np.full_like(labels, majority), NUM_CLASSES))
    names = ("accuracy", "balanced_accuracy", "macro_f1")
    return Baseline(code=CLASS_CODES[majority], **{name: float(scores[name][0]) for name in names})


def classification_report(judgement: Judgement) -> str:
    """The text report in scikit-learn's layout, then the accuracy of each class.

    As in scikit-learn, a class without images and without answers has no line, and an undefined score prints
    as 0.00; a line below names both kinds. The JSON keeps them as null. Scores of drawings end with their notice.
    """
    answered = np.sum(judgement.confusion, axis=0)
    shown = {
        lesion_class.label_text: judgement.per_class[code]
        for c, (code, lesion_class) in enumerate(zip(CLASS_CODES, CLASSES, strict=True))
        if judgement.per_class[code].n or answered[c]
    }
    lines = [f"{'':>12} {'precision':>10}{'recall':>10}{'f1-score':>10}{'support':>10}", ""]
    for label_text, scores in shown.items():
        values = (scores.precision.value, scores.recall.value, scores.f1.value)
        lines.append(_line(label_text, values, scores.n))
    count, metrics = judgement.n_images, judgement.metrics
    lines += ["", f"{'accuracy':>12} {'':>10}{'':>10}{_two(metrics['accuracy'].value):>10}{count:>10}"]
    for average in ("macro", "weighted"):
        names = [f"{average}_{part}" for part in ("precision", "recall", "f1")]
        lines.append(_line(f"{average} avg", [metrics[name].value for name in names], count))
    lines += ["", "Accuracy per class"]
    lines += [f"{label_text:>12} {_share(scores)}" for label_text, scores in shown.items()]
    absent = [lesion_class.label_text for lesion_class in CLASSES if lesion_class.label_text not in shown]
    undefined = [text for text, s in shown.items() if s.precision.value is None or s.recall.value is None]
    if undefined:
        lines += ["", f"Undefined, printed as 0.00 (no image or no answer): {', '.join(undefined)}"]
    if absent:
        lines += ["", f"Neither images nor answers: {', '.join(absent)}"]
    if judgement.notice:
        lines += ["", judgement.notice]
    return "\n".join(lines) + "\n"


def _line(name: str, values: tuple[float | None, ...] | list[float | None], support: int) -> str:
    return f"{name:>12} " + "".join(f"{_two(value):>10}" for value in values) + f"{support:>10}"


def _two(value: float | None) -> str:
    return f"{value or 0.0:.2f}"


def _share(scores: ClassJudgement) -> str:
    """`80.6%  (29 of 36)`, or a dash for a class without images."""
    if scores.accuracy.value is None:
        return f"{'-':>10}  (no images)"
    return f"{scores.accuracy.value:>10.1%}  ({round(scores.accuracy.value * scores.n)} of {scores.n})"
