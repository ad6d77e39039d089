"""Hard mining: predictions on training images -> hardness -> what each image weighs in the next round.

The report's way takes the images that the trained model itself gets wrong or answers with low confidence, and
trains on those alone. The other way reads hardness off models that never saw the image, leaves images out of the
boost whose label both these models and the image's neighbours contradict, and boosts the hard ones among all
images by a bounded factor. Sources: Just Train Twice (arXiv 2107.09044), EL2N (arXiv 2107.07075), Dataset
Cartography (arXiv 2009.10795).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lentigo.core.config import MiningConfig, Strength
from lentigo.core.errors import DataError
from lentigo.core.predictions import Predictions
from lentigo.core.seeding import derive_seed
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.sampling import draw_probabilities
from lentigo.training.mining_table import Floats, RoundTable

_BISECTIONS = 40
T = TypeVar("T", bound=np.generic)


def measure_hardness(tables: Sequence[Predictions], agreement: Sequence[Floats] = ()) -> RoundTable:
    """Hardness of N images from the predictions of one or several models, all in the same order; all weights 1.

    `agreement`: for each table, the share (N,) of nearest training images with the image's own label.
    """
    first = tables[0]
    labels, rows = first.label, np.arange(len(first))
    probs = np.stack([table.probs for table in tables])
    confidence = probs[:, rows, labels]
    others = probs.copy()
    others[:, rows, labels] = -1
    one_hot = np.eye(NUM_CLASSES)[labels]
    answered = probs.mean(axis=0).argmax(axis=1)
    same_wrong = (probs.argmax(axis=2) == answered).all(axis=0) & (answered != labels)
    return RoundTable(
        image_id=first.image_id,
        lesion_id=first.lesion_id,
        label=labels,
        answered=answered,
        mean_confidence=confidence.mean(axis=0),
        variability=confidence.std(axis=0),
        el2n=np.linalg.norm(probs - one_hot, axis=2).mean(axis=0),
        margin=(confidence - others.max(axis=2)).mean(axis=0),
        wrong_confidence=np.where(same_wrong, probs[:, rows, answered].min(axis=0), 0.0),
        agreement=np.min(agreement, axis=0) if len(agreement) else np.full(len(first), np.nan),
        suspect=np.zeros(len(first), np.bool_),
        weight=np.ones(len(first)),
        why=("",) * len(first),
    )


def neighbor_agreement(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    reference: NDArray[np.float32],
    reference_labels: NDArray[np.int64],
    neighbors: int,
) -> Floats:
    """Share (N,) of the nearest reference images, by cosine, that have each image's own label.

    features (N, D), reference (M, D). Fewer than `neighbors` references are all taken.
    """
    count = min(neighbors, len(reference))
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    reference = reference / np.maximum(np.linalg.norm(reference, axis=1, keepdims=True), 1e-12)
    nearest = np.argpartition(-(unit @ reference.T), count - 1, axis=1)[:, :count]
    share: Floats = (reference_labels[nearest] == labels[:, None]).mean(axis=1)
    return share


def screen_noise(table: RoundTable, mining: MiningConfig) -> RoundTable:
    """Mark images whose label all models contradict with confidence and whose neighbours have other labels."""
    contradicted = table.agreement <= mining.suspect_agreement
    suspect = (table.wrong_confidence >= mining.suspect_confidence) & contradicted
    return replace(table, suspect=suspect)


def hard_by_answer(table: RoundTable, mining: MiningConfig) -> NDArray[np.bool_]:
    """Images (N,) that are answered wrong, or right with less than the threshold."""
    hard: NDArray[np.bool_] = (table.answered != table.label) | (table.mean_confidence < mining.confidence_threshold)
    return hard


def choose_hard_only(table: RoundTable, mining: MiningConfig, seed: int) -> RoundTable:
    """The report's way: weight 1 for wrong and for unsure answers, 0 for all others.

    Raises:
        DataError: where no image is hard.
    """
    wrong = table.answered != table.label
    hard = hard_by_answer(table, mining)
    if not hard.any():
        raise DataError(
            f"no hard images: all {len(table)} are answered right with {mining.confidence_threshold:g} or more",
            "Raise mining.confidence_threshold.",
        )
    why = np.where(wrong, "wrong answer", np.where(hard, "low confidence", "not hard")).tolist()
    generator = np.random.default_rng(derive_seed(seed, "mining"))
    if mining.control == "continuation":
        return table.weighted(np.ones(len(table)), ["control: all images"] * len(table))
    if mining.control == "random":
        hard = generator.permutation(hard)
        why = np.where(hard, "control: drawn at random", "not drawn").tolist()
    elif mining.control == "shuffled":
        hard = _shuffled_in_class(hard, table.label, generator)
        why = np.where(hard, "control: shuffled within class", "not drawn").tolist()
    return table.weighted(hard.astype(np.float64), why)


def choose_boost(table: RoundTable, mining: MiningConfig, sampler: Strength, seed: int) -> RoundTable:
    """Boost the hardest images among all: weight 1 + boost x hardness, capped; suspects are never boosted.

    Hard are the hardest images that would together get `hard_fraction` of the draws without a boost. Their weights
    are scaled down where they would take more than `max_hard_share` of the draws. The controls keep the weights
    and give them to random images, to random images of the same class (never to suspects), or keep hard images alone.

    Raises:
        DataError: where no image is hard, unless `hard_fraction` is 0 or the control gives all the same weight.
    """
    base = draw_probabilities(table.label, sampler)
    hard = np.zeros(len(table), np.bool_)
    ranking = np.array([i for i in np.argsort(-table.hardness, kind="stable") if not table.suspect[i]], np.int64)
    hard[ranking[np.cumsum(base[ranking]) <= mining.hard_fraction]] = True
    wanted = mining.hard_fraction > 0 or mining.control == "hard_only"
    if wanted and mining.control != "continuation" and not hard.any():
        raise DataError(
            f"no hard images: {int(table.suspect.sum())} of {len(table)} are suspect, and none of the others fits "
            f"into a share of {mining.hard_fraction:g} of the draws",
            "Raise mining.hard_fraction, or mining.suspect_confidence where most are suspect.",
        )
    weight = np.where(hard, np.minimum(1 + mining.boost * table.hardness, mining.boost_cap), 1.0)
    weight = _limit_share(weight, hard, table.label, sampler, mining.max_hard_share)
    why = np.where(table.suspect, "suspect, not boosted", np.where(hard, "hard, boosted", "")).tolist()
    generator = np.random.default_rng(derive_seed(seed, "mining"))
    if mining.control == "continuation":
        return table.weighted(np.ones(len(table)), ["control: all images alike"] * len(table))
    if mining.control == "random":
        weight[~table.suspect] = generator.permutation(weight[~table.suspect])
        why = np.where(weight > 1, "control: boosted at random", "").tolist()
    elif mining.control == "shuffled":
        weight[~table.suspect] = _shuffled_in_class(weight[~table.suspect], table.label[~table.suspect], generator)
        why = np.where(weight > 1, "control: boost shuffled within class", "").tolist()
    elif mining.control == "hard_only":
        weight = hard.astype(np.float64)
        why = np.where(hard, "control: hard images alone", "not drawn").tolist()
    return table.weighted(weight, why)


def _shuffled_in_class(values: NDArray[T], labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[T]:
    result = values.copy()
    for label in np.unique(labels):
        place = np.flatnonzero(labels == label)
        result[place] = values[generator.permutation(place)]
    return result


def _limit_share(
    weight: Floats, hard: NDArray[np.bool_], labels: NDArray[np.int64], sampler: Strength, limit: float
) -> Floats:
    """The largest 1 + s (weight - 1), s in 0..1, with which hard images get at most `limit` of the draws."""

    def share(scale: float) -> float:
        return float(draw_probabilities(labels, sampler, 1 + scale * (weight - 1))[hard].sum())

    if share(1.0) <= limit:
        return weight
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) <= limit else (low, middle)
    return 1 + low * (weight - 1)
