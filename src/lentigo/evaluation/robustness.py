"""How much a network loses on corrupted photographs: 18 kinds at five severities, beside the clean images.

Every corruption of an image is drawn from its id alone (`lentigo.data.corruptions`), so all networks meet the same
hairs. The same resamples of lesions judge clean and corrupted answers, so the interval of a drop is a paired one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import nn

from lentigo.core.errors import ConfigError, DataError, first_five
from lentigo.core.predictions import Predictions
from lentigo.core.seeding import derive_seed
from lentigo.data.cache import ImageSource
from lentigo.data.catalog import Catalog
from lentigo.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from lentigo.data.dataset import LesionDataset
from lentigo.data.images import load_image
from lentigo.data.preprocess import Preprocess
from lentigo.evaluation.intervals import LESION_BOOTSTRAP, bootstrap
from lentigo.evaluation.metrics import Estimate, Floats, confusion_matrix, overall_scores
from lentigo.evaluation.scores import Scores
from lentigo.training.inference import Progress, predict_logits

METRICS = ("accuracy", "balanced_accuracy")
FEWEST_PER_CLASS = 10
"""A subset keeps at least so many images of a class, or all that there are: balanced accuracy needs them."""
CLEAN = ("clean", 0)
Cell = tuple[str, int]
"""Kind and severity."""


@dataclass(frozen=True)
class CorruptedImages(ImageSource):
    """An ImageSource whose photographs are corrupted after decoding, before the first step of `Preprocess`."""

    kind: str
    severity: int
    seed: int

    def __getitem__(self, index: int) -> Image.Image:
        row = self.catalog.rows[index]
        picture = np.asarray(load_image(row.path, row.member))
        if (self.kind, self.severity) != CLEAN:
            picture = corrupt(picture, self.kind, self.severity, image_id=row.image_id, seed=self.seed)
        return self.preprocess.first_step(Image.fromarray(picture))


class KindRobustness(BaseModel):
    """One kind of corruption, metric -> estimate. `by_severity` follows `Robustness.severities`.

    `mean` is over the severities, `drop` is the clean score minus `mean`: above 0 where the corruption harms.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    by_severity: tuple[dict[str, Estimate], ...]
    mean: dict[str, Estimate]
    drop: dict[str, Estimate]


class Robustness(Scores):
    """Scores on clean and corrupted copies of the same images; every dict maps metric -> estimate.

    `n_images` of the split's `n_available` were judged. `mean` and `drop` are over all kinds and severities. A subset
    holds more of the rare classes than the split, so that its clean accuracy is not the split's.
    """

    split: str
    n_images: int
    n_lesions: int
    n_available: int
    severities: tuple[int, ...]
    clean: dict[str, Estimate]
    kinds: tuple[KindRobustness, ...]
    mean: dict[str, Estimate]
    drop: dict[str, Estimate]
    resamples: int
    seed: int
    interval: str


def stratified_subset(catalog: Catalog, max_images: int | None, seed: int = 0) -> Catalog:
    """At most `max_images` rows, in their order: each class's share, but `FEWEST_PER_CLASS` of it or all there are.

    All rows where `max_images` is None or no less than their number. The draw depends on seed and ids, not on order.

    Raises:
        ConfigError: where `max_images` is less than the rare classes need.
    """
    if max_images is None or max_images >= len(catalog):
        return catalog
    counts = catalog.class_counts
    least = np.minimum(counts, FEWEST_PER_CLASS)
    if max_images < least.sum():
        raise ConfigError(
            f"expected {least.sum()} images or more ({FEWEST_PER_CLASS} a class); found {max_images}",
            "Judge more images, or all.",
        )
    quota = np.maximum(least, max_images * counts // len(catalog))
    while quota.sum() != max_images:
        step = 1 if quota.sum() < max_images else -1
        # Towards the exact shares, from where the quota is farthest; never below the least or above the count.
        allowed = quota < counts if step > 0 else quota > least
        gap = np.where(allowed, step * (max_images * counts / len(catalog) - quota), -np.inf)
        quota[gap.argmax()] += step
    generator = np.random.default_rng(derive_seed(seed, "robustness subset"))
    ids = np.array([row.image_id for row in catalog])
    chosen: set[str] = set()
    for label, take in enumerate(quota):
        chosen |= set(generator.permutation(np.sort(ids[catalog.labels == label]))[:take].tolist())
    return catalog.filter(lambda row: row.image_id in chosen)


def predict_corrupted(
    network: nn.Module,
    preprocess: Preprocess,
    rows: Catalog,
    *,
    kinds: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
    channels_last: bool = True,
    views: int = 1,
    progress: Progress = lambda done, total: None,
) -> dict[Cell, Predictions]:
    """Predictions of the clean rows, under `CLEAN`, and of their corrupted copies, by kind and severity.

    `progress` counts images over all cells.

    Raises:
        ConfigError: for an unknown kind or severity, or none.
        DataError: where images cannot be read.
    """
    unknown = [kind for kind in kinds if kind not in CORRUPTIONS] + [s for s in severities if s not in SEVERITIES]
    if unknown or not kinds or not severities:
        raise ConfigError(
            f"expected kinds of {', '.join(CORRUPTIONS)} and severities of 1 to 5; "
            f"found {first_five(unknown) or 'none'}",
            "Leave them out to judge all.",
        )
    cells = [CLEAN, *((kind, severity) for kind in kinds for severity in severities)]
    found: dict[Cell, Predictions] = {}
    for number, (kind, severity) in enumerate(cells):
        images = CorruptedImages(rows, preprocess, np.empty(0, np.uint8), kind, severity, seed)
        found[kind, severity] = predict_logits(
            network,
            LesionDataset(images),
            device=device,
            num_workers=num_workers,
            channels_last=channels_last,
            views=views,
            progress=_from(number * len(rows), len(cells) * len(rows), progress),
        )
    return found


def _from(before: int, total: int, progress: Progress) -> Progress:
    """One cell's progress as that of all cells."""
    return lambda done, _: progress(before + done, total)


def judge_corrupted(
    predictions: Mapping[Cell, Predictions],
    *,
    split: str,
    n_available: int | None = None,
    resamples: int = 2000,
    seed: int = 0,
    synthetic: bool = False,
) -> Robustness:
    """Scores of what `predict_corrupted` gave; no network is run.

    `n_available` is the number of images of the whole split, where only a subset was predicted.

    Raises:
        DataError: where the clean predictions are missing, or a kind lacks a severity, or images differ.
    """
    kinds = list(dict.fromkeys(kind for kind, _ in predictions if kind != CLEAN[0]))
    severities = sorted({severity for kind, severity in predictions if kind != CLEAN[0]})
    missing = [cell for cell in (CLEAN, *((k, s) for k in kinds for s in severities)) if cell not in predictions]
    if missing or not kinds:
        raise DataError(
            f"expected predictions of clean images and of every kind at every severity; "
            f"missing: {first_five([f'{kind} {severity}' for kind, severity in missing]) or 'any corruption'}",
            "Predict them with predict_corrupted.",
        )
    clean = predictions[CLEAN]
    foreign = [f"{kind} {severity}" for (kind, severity), one in predictions.items() if one.image_id != clean.image_id]
    if foreign or not len(clean):
        raise DataError(
            f"expected the same images under every corruption; found others under {first_five(foreign) or 'all'}",
            "Predict them with predict_corrupted, of one set of rows.",
        )
    scores = bootstrap(
        lambda weights: _scores(predictions, kinds, severities, weights),
        clean.lesion_id,
        resamples=resamples,
        seed=seed,
    )
    everything = np.ones(len(clean), dtype=np.bool_)

    def estimates(name: str, *index: int) -> dict[str, Estimate]:
        return {metric: scores.estimate(name, everything, *index, m) for m, metric in enumerate(METRICS)}

    return Robustness(
        split=split,
        n_images=len(clean),
        n_lesions=len(set(clean.lesion_id)),
        n_available=len(clean) if n_available is None else n_available,
        severities=tuple(severities),
        clean=estimates("clean"),
        kinds=tuple(
            KindRobustness(
                kind=kind,
                by_severity=tuple(estimates("cells", k, s) for s in range(len(severities))),
                mean=estimates("kind_mean", k),
                drop=estimates("kind_drop", k),
            )
            for k, kind in enumerate(kinds)
        ),
        mean=estimates("mean"),
        drop=estimates("drop"),
        resamples=resamples,
        seed=seed,
        interval=LESION_BOOTSTRAP,
        synthetic=synthetic,
    )


def _scores(
    predictions: Mapping[Cell, Predictions], kinds: Sequence[str], severities: Sequence[int], weights: Floats
) -> dict[str, Floats]:
    """clean, mean, drop (B, 2); kind_mean, kind_drop (B, K, 2); cells (B, K, S, 2). The last axis is METRICS."""

    def one(cell: Cell) -> Floats:
        table = predictions[cell]
        confusion = confusion_matrix(table.label, table.probs.argmax(axis=1), table.logits.shape[1], weights)
        overall = overall_scores(confusion)
        return np.stack([overall[metric] for metric in METRICS], axis=-1)

    clean = one(CLEAN)
    cells = np.stack([np.stack([one((kind, s)) for s in severities], axis=1) for kind in kinds], axis=1)
    kind_mean = cells.mean(axis=2)
    mean = kind_mean.mean(axis=1)
    return {
        "clean": clean,
        "cells": cells,
        "kind_mean": kind_mean,
        "kind_drop": _difference(clean[:, None], kind_mean),
        "mean": mean,
        "drop": _difference(clean, mean),
    }


def _difference(clean: Floats, corrupted: Floats) -> Floats:
    """Clean minus corrupted; the last digits, which depend on the order of sums, must not break a tie."""
    return np.round(clean - corrupted, 12)
