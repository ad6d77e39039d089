"""How well each subgroup of patients and pictures is served: by sex, age, site, way of diagnosis and picture size.

A flag marks a score whose 95% interval has no point in common with that of all images. It is a reason to look and
not a finding: with g groups and m scores there are g * m comparisons, and a group that is much smaller than the
whole is flagged by chance in about 5% of them or fewer (`SubgroupAudit.chance_flags`; in more for balanced accuracy of
groups under 50 images, since a class with one lesion shows no spread); a real difference within a
small group mostly goes unflagged. And groups differ in their mix of classes: where all diagnoses are by follow-up
all lesions are nevi, which are easy. So each group carries what the whole's recalls would give on the group's own
classes (`Subgroup.expected`, the indirect standardisation of epidemiology): only what differs from that is the
group's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lentigo.core.errors import DataError, first_five
from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import MELANOMA_LABEL, NUM_CLASSES
from lentigo.data.catalog import Row
from lentigo.data.images import image_size
from lentigo.evaluation.delong import MALIGNANT, task_scores
from lentigo.evaluation.intervals import LESION_BOOTSTRAP, bootstrap
from lentigo.evaluation.metrics import (
    CONFIDENCE,
    Estimate,
    Floats,
    Labels,
    class_scores,
    confusion_matrix,
    overall_scores,
    rarer_side,
    weighted_auc,
)
from lentigo.evaluation.scores import Scores

SKIN_TONE_STATEMENT = (
    "The catalogue holds no skin tone (nor do HAM10000 or the ISIC 2018 data), so whether lesions on dark skin are "
    "recognised as well as on light skin cannot be audited here and is unknown."
)
FEWEST_IMAGES = 20
"""Smaller groups are listed and not judged: an interval from so few lesions would say nothing."""
AGE_EDGES_YEARS = (30, 45, 60, 75)
"""Bands of 15 years, lower edges inclusive; HAM10000 rounds ages to 5 years, so that the edges part no value."""
MOST_SIZES = 8
UNKNOWN = "unknown"
SCORES = ("accuracy", "balanced_accuracy", "malignant_auc", "melanoma_sensitivity")


class Subgroup(BaseModel):
    """One group. `n_classes` of the seven occur in it; balanced accuracy is the mean over these.

    `scores` is empty where the group has fewer than 20 images. `expected` gives what the recalls of all images make
    of this group's classes: accuracy and balanced accuracy. `apart` names the scores whose interval lies apart from
    that of all images; `unexplained` those of them whose interval does not hold the expected value either, or which
    have none.
    """

    model_config = ConfigDict(frozen=True)

    dimension: str
    name: str
    n_images: int
    n_lesions: int
    n_classes: int
    scores: dict[str, Estimate]
    expected: dict[str, float]
    apart: tuple[str, ...]
    unexplained: tuple[str, ...]

    @property
    def judged(self) -> bool:
        """Whether the group has enough images for scores."""
        return bool(self.scores)


class SubgroupAudit(Scores):
    """Every group of every dimension, beside the whole.

    `n_comparisons` pairs of intervals were compared; `chance_flags` of them, at most, are expected to lie apart
    though nothing differs (5%).
    """

    n_images: int
    n_lesions: int
    whole: dict[str, Estimate]
    groups: tuple[Subgroup, ...]
    n_comparisons: int
    chance_flags: float
    fewest_images: int
    resamples: int
    seed: int
    interval: str
    statement: str


def judge_subgroups(
    predictions: Predictions, rows: Iterable[Row], *, resamples: int = 2000, seed: int = 0, synthetic: bool = False
) -> SubgroupAudit:
    """Scores of each subgroup with lesion-cluster bootstrap intervals, and which lie apart from the whole.

    `rows` are those of the catalogue; others than the predicted images are ignored. Sizes that the catalogue lacks
    are read from the images' headers, and are unknown where the images have moved. `dx_type` is a fact about the
    label: it divides the results here and is never an input of a model.

    Raises:
        DataError: where there are no predictions, or predicted images have no row.
    """
    row_of = {row.image_id: row for row in rows}
    missing = [image_id for image_id in predictions.image_id if image_id not in row_of]
    if missing or not len(predictions):
        raise DataError(
            f"expected predictions of rows of the catalogue; found none for {first_five(missing) or 'any image'}",
            "Pass the run's own catalogue and predictions.",
        )
    judged = [row_of[image_id] for image_id in predictions.image_id]
    labels, probs = predictions.label, predictions.probs
    lesions = np.asarray(predictions.lesion_id, dtype=np.str_)
    whole = _estimates(labels, probs, lesions, resamples, seed)
    recall = class_scores(confusion_matrix(labels, probs.argmax(axis=1), NUM_CLASSES))["recall"][0]
    groups = []
    for dimension, names in _memberships(judged).items():
        for name in _ordered(names):
            inside = np.array([own == name for own in names])
            enough = inside.sum() >= FEWEST_IMAGES
            scores = _estimates(labels[inside], probs[inside], lesions[inside], resamples, seed) if enough else {}
            counts = np.bincount(labels[inside], minlength=NUM_CLASSES)
            expected = {
                "accuracy": float(np.average(recall[counts > 0], weights=counts[counts > 0])),
                "balanced_accuracy": float(recall[counts > 0].mean()),
            }
            apart = tuple(score for score, own in scores.items() if _lies_apart(own, whole[score]))
            groups.append(
                Subgroup(
                    dimension=dimension,
                    name=name,
                    n_images=int(inside.sum()),
                    n_lesions=len(np.unique(lesions[inside])),
                    n_classes=int((counts > 0).sum()),
                    scores=scores,
                    expected=expected,
                    apart=apart,
                    unexplained=tuple(score for score in apart if not _holds(scores[score], expected.get(score))),
                )
            )
    compared = sum(
        own.ci_low is not None and whole[score].ci_low is not None
        for group in groups
        for score, own in group.scores.items()
    )
    return SubgroupAudit(
        n_images=len(predictions),
        n_lesions=len(np.unique(lesions)),
        whole=whole,
        groups=tuple(groups),
        n_comparisons=compared,
        chance_flags=round((1.0 - CONFIDENCE) * compared, 2),
        fewest_images=FEWEST_IMAGES,
        resamples=resamples,
        seed=seed,
        interval=LESION_BOOTSTRAP,
        statement=SKIN_TONE_STATEMENT,
        synthetic=synthetic,
    )


def age_band(age_years: float | None) -> str:
    """`under 30`, `30-44`, `45-59`, `60-74`, `75 and over` or `unknown`."""
    if age_years is None:
        return UNKNOWN
    band = sum(age_years >= edge for edge in AGE_EDGES_YEARS)
    if band == 0:
        return f"under {AGE_EDGES_YEARS[0]}"
    low = AGE_EDGES_YEARS[band - 1]
    return f"{low} and over" if band == len(AGE_EDGES_YEARS) else f"{low}-{AGE_EDGES_YEARS[band] - 1}"


def _memberships(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Dimension -> each image's group."""
    return {
        "sex": [row.sex or UNKNOWN for row in rows],
        "age": [age_band(row.age_years) for row in rows],
        "site": [row.site or UNKNOWN for row in rows],
        "dx_type": [row.dx_type or UNKNOWN for row in rows],
        "image_size": _sizes(rows),
    }


def _sizes(rows: Sequence[Row]) -> list[str]:
    """`600x450`, width first; beyond the eight most usual sizes all are `other`."""
    names = [_size(row) for row in rows]
    usual = {name for name, _ in Counter(names).most_common(MOST_SIZES)}
    return [name if name in usual else "other" for name in names]


def _size(row: Row) -> str:
    try:
        width, height = (row.width, row.height) if row.width else image_size(row.path, row.member)
    except DataError:
        return UNKNOWN
    return f"{width}x{height}"


def _ordered(names: Sequence[str]) -> list[str]:
    """The groups that occur: ages from young to old, all others from the largest to the smallest, unknown last."""
    bands = [age_band(0.0), *(age_band(float(edge)) for edge in AGE_EDGES_YEARS)]
    by_size = [name for name, _ in sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))]
    return sorted(by_size, key=lambda name: (name == UNKNOWN, bands.index(name) if name in bands else 0))


def _estimates(
    labels: Labels, probs: Floats, lesions: NDArray[np.str_], resamples: int, seed: int
) -> dict[str, Estimate]:
    """SCORES of these images; each with the n of the images that it rests on, as `Estimate` counts them."""
    malignant, malignant_score = task_scores(labels, probs, MALIGNANT)
    answers = probs.argmax(axis=1)

    def score(weights: Floats) -> dict[str, Floats]:
        confusion = confusion_matrix(labels, answers, probs.shape[1], weights)
        overall = overall_scores(confusion)
        return {
            "accuracy": overall["accuracy"],
            "balanced_accuracy": overall["balanced_accuracy"],
            "malignant_auc": weighted_auc(malignant, malignant_score, weights),
            "melanoma_sensitivity": class_scores(confusion)["recall"][:, MELANOMA_LABEL],
        }

    found = bootstrap(score, lesions, resamples=resamples, seed=seed)
    everything = np.ones(len(labels), dtype=np.bool_)
    rarer = rarer_side(malignant)
    evidence = (everything, everything, rarer, labels == MELANOMA_LABEL)
    return {name: found.estimate(name, rows) for name, rows in zip(SCORES, evidence, strict=True)}


def _lies_apart(own: Estimate, whole: Estimate) -> bool:
    """Whether two intervals have no point in common; False where one is missing."""
    if own.ci_low is None or own.ci_high is None or whole.ci_low is None or whole.ci_high is None:
        return False
    return own.ci_high < whole.ci_low or own.ci_low > whole.ci_high


def _holds(own: Estimate, value: float | None) -> bool:
    """Whether an interval holds a value; False where either is missing."""
    if value is None or own.ci_low is None or own.ci_high is None:
        return False
    return own.ci_low <= value <= own.ci_high
