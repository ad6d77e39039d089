"""Facts of image files that are not the picture (size, folder, camera), and how well they tell the class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import LentigoError
from lentigo.core.taxonomy import NUM_CLASSES, find_label
from lentigo.data.catalog import Catalog, Row
from lentigo.data.images import image_size, open_file, open_header
from lentigo.data.source_rows import parse_split
from lentigo.data.splits import fold_assignment

FOLDS = 5
BYTES_LEVELS = 10
"""Bytes per pixel are compared in ten levels of equal numbers of images."""
LEVEL = 0.05
ALL = "all"
_EXIF_MAKE, _EXIF_MODEL = 0x010F, 0x0110
_UNKNOWN = "unknown"
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Predictability:
    """How well one fact of the files tells the class, balanced accuracy over folds that part no lesion.

    `chance`, `chance_low` and `chance_high` are mean and central 95% of the same under permuted classes of lesions;
    `p` is one-sided and not corrected over the facts. All None where the fact has one level, or where there are fewer
    than two classes or five lesions.
    """

    fact: str
    n_images: int
    n_levels: int
    balanced_accuracy: float | None
    chance: float | None
    chance_low: float | None
    chance_high: float | None
    p: float | None

    @property
    def tells(self) -> bool:
        """Whether the fact tells more of the class than permuted classes do, at p < 0.05."""
        return self.p is not None and self.p < LEVEL


def file_facts(catalog: Catalog) -> dict[str, list[str]]:
    """Fact -> its level for each row: size, aspect, bytes per pixel, folder, ending, EXIF with its camera.

    Bytes per pixel are partly the picture itself (smooth skin compresses well), the others are not. Folders named
    after a class or a split do not count. A fact that cannot be read is `unknown`.
    """
    sizes = [_size(row) for row in catalog]
    bytes_per_pixel = [
        row.path.stat().st_size / (width * height) if width and not row.member else np.nan
        for row, (width, height) in zip(catalog, sizes, strict=True)
    ]
    return {
        "size": [f"{width}x{height}" if width else _UNKNOWN for width, height in sizes],
        "aspect": [f"{width / height:.2f}" if width else _UNKNOWN for width, height in sizes],
        "bytes_per_pixel": _levels(np.array(bytes_per_pixel)),
        "folder": [_folder(row.path) for row in catalog],
        "ending": [row.path.suffix.lower() for row in catalog],
        "camera": [_camera(row) for row in catalog],
    }


def _size(row: Row) -> tuple[int, int]:
    try:
        return image_size(row.path, row.member)
    except LentigoError:  # unreadable, or DICOM without its package: `data check` says so
        return 0, 0


def _folder(path: Path) -> str:
    """The folders above the file, without those that name a class or a split: layout, not origin."""
    return "/".join(part for part in path.parts[:-1] if find_label(part) is None and not parse_split(part))


def _camera(row: Row) -> str:
    """`no EXIF`, `EXIF`, or maker and model."""
    if row.member:
        return _UNKNOWN
    try:
        with open_file(row.path) as stream:
            image = open_header(stream, row.location)
            if "exif" not in image.info:
                return "no EXIF"
            exif = image.getexif()
    except Exception:  # broken EXIF blocks raise anything; DICOM and damaged files have none that Pillow reads
        return _UNKNOWN
    return " ".join(str(exif[tag]) for tag in (_EXIF_MAKE, _EXIF_MODEL) if tag in exif) or "EXIF"


def _levels(values: NDArray[np.float64]) -> list[str]:
    """Ten levels of equal numbers of images."""
    known = ~np.isnan(values)
    if not known.any():
        return [_UNKNOWN] * len(values)
    edges = np.quantile(values[known], np.linspace(0.0, 1.0, BYTES_LEVELS + 1)[1:-1])
    levels = np.searchsorted(edges, values, side="right")
    return [str(level) if there else _UNKNOWN for level, there in zip(levels, known, strict=True)]


def predictability(
    catalog: Catalog, facts: dict[str, list[str]], *, permutations: int = 200, seed: int = 0
) -> list[Predictability]:
    """How well each fact, and all of them together, tell the class: naive Bayes with equal priors, cross-validated.

    Folds part no lesion, and classes are permuted among lesions, not images: photographs of one lesion share
    camera and class, which alone would look like a rule. p counts the permutations that do as well, plus one
    (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9(1), 2010).
    """
    lesions, lesion_of = np.unique([row.lesion_id for row in catalog], return_inverse=True)
    labels, generator = catalog.labels, np.random.default_rng(seed)
    usable = len(lesions) >= FOLDS and len(np.unique(labels)) > 1
    folds = fold_assignment(catalog, FOLDS, seed, allow_missing_classes=True) if usable else None
    label_of_lesion = np.zeros(len(lesions), np.int64)
    label_of_lesion[lesion_of] = labels
    truths = [labels, *(generator.permutation(label_of_lesion)[lesion_of] for _ in range(permutations))]
    columns = {name: np.unique(levels, return_inverse=True)[1] for name, levels in facts.items()}
    found = []
    for name, used in (*((name, [column]) for name, column in columns.items()), (ALL, list(columns.values()))):
        n_levels = len(np.unique(np.stack(used), axis=1).T)
        scores = (
            [_cross_validated(truth, used, folds) for truth in truths] if folds is not None and n_levels > 1 else []
        )
        found.append(_predictability(name, len(catalog), n_levels, scores))
    return found


def _predictability(name: str, n_images: int, n_levels: int, scores: list[float]) -> Predictability:
    """`scores`: the true one first, then those of permuted classes; empty where it is undefined."""
    values: list[float | None] = [None] * 5
    if scores:
        true, null = scores[0], np.array(scores[1:])
        p = (np.count_nonzero(null >= true - _ROUNDING) + 1) / (len(null) + 1)
        values = [true, float(null.mean()), *(float(bound) for bound in np.percentile(null, [2.5, 97.5])), float(p)]
    names = ("balanced_accuracy", "chance", "chance_low", "chance_high", "p")
    return Predictability(fact=name, n_images=n_images, n_levels=n_levels, **dict(zip(names, values, strict=True)))


def _cross_validated(
    labels: NDArray[np.int64], columns: Sequence[NDArray[np.int64]], folds: NDArray[np.int64]
) -> float:
    """Balanced accuracy of naive Bayes, each image answered from the other folds.

    Every class's levels are smoothed by one image, spread evenly. Of k classes that tie, the right one counts 1/k.
    """
    log_likelihood = np.zeros((len(labels), NUM_CLASSES))
    for column in columns:
        counts = np.zeros((FOLDS, NUM_CLASSES, int(column.max()) + 1))
        np.add.at(counts, (folds, labels, column), 1.0)
        others = counts.sum(axis=0) - counts + 1.0 / counts.shape[2]
        log_likelihood += np.log(others / others.sum(axis=2, keepdims=True))[folds, :, column]
    images = np.bincount(labels, minlength=NUM_CLASSES)
    log_likelihood[:, images == 0] = -np.inf
    best = log_likelihood >= log_likelihood.max(axis=1, keepdims=True) - _ROUNDING
    right = best[np.arange(len(labels)), labels] / best.sum(axis=1)
    recall = np.bincount(labels, right, NUM_CLASSES)[images > 0] / images[images > 0]
    return float(recall.mean())
