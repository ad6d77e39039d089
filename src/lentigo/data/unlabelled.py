"""Images without labels, to learn from another network: training rows of catalogues, and folders of photographs.

Labels are taken away here, and images of val and test are never listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lentigo.core.errors import DataError, first_five
from lentigo.core.seeding import derive_seed
from lentigo.data.catalog import Catalog, Row
from lentigo.data.duplicates import known_groups
from lentigo.data.folders import files_below
from lentigo.data.images import IMAGE_SUFFIXES

UNLABELLED = -1
"""The label of an image without one: no class, and no index of any."""
TRAINING_SPLITS = ("train", "extra")


@dataclass(frozen=True)
class UnlabelledImages:
    """Images to learn from and images kept apart; every row's label is UNLABELLED.

    `left_out` counts rows of val, test or no split; `photographs` and `other_files` what the folders held.
    """

    train: Catalog
    held_out: Catalog
    left_out: int
    photographs: int
    other_files: int

    def __str__(self) -> str:
        skin = len(self.train) + len(self.held_out) - self.photographs
        parts = (
            [f"{skin} images of train and extra ({self.left_out} of val, test or no split left out)"] if skin else []
        )
        aside = f" ({self.other_files} files of other kinds left aside)" if self.other_files else ""
        parts += [f"{self.photographs} photographs{aside}"] if self.photographs else []
        return f"{' and '.join(parts)}: learning from {len(self.train)}, {len(self.held_out)} kept apart"


def gather_unlabelled(
    catalogs: Sequence[Catalog], photo_folders: Sequence[Path], *, held_out_share: float, seed: int
) -> UnlabelledImages:
    """The training rows of all catalogues and the images below all folders, a share of each kept apart.

    Whole lesions (patients, near-duplicate groups) are kept apart, drawn by `seed`; at least one of each kind.

    Raises:
        DataError: a lesion on two sides, a catalogue without training rows, a folder without images, and
            photographs that are val or test images of a catalogue.
    """
    # Together: a lesion that one catalogue trains on may be a test lesion of another.
    Catalog(tuple(row for catalog in catalogs for row in catalog)).check_disjoint()
    skin: list[Row] = []
    for catalog in catalogs:
        rows = catalog.split(*TRAINING_SPLITS).rows
        if not rows:
            raise DataError(
                f"no training rows: none of the {len(catalog)} images of {catalog.name} is in train or extra",
                "Make a split with `lentigo data split DATA --out split.csv`, then pass split.csv.",
            )
        skin += [replace(row, label=UNLABELLED) for row in rows]
    left_out = [row for catalog in catalogs for row in catalog if row.split not in TRAINING_SPLITS]
    photographs, other_files = list_photographs(photo_folders)
    _refuse_left_out(photographs, left_out)
    if not skin and not photographs:
        raise DataError("no images to learn from", "Pass a catalogue with splits, a folder of photographs, or both.")
    groups, photograph_groups = known_groups(skin), known_groups(photographs)
    apart = _keep_apart(groups, held_out_share, seed) | _keep_apart(photograph_groups, held_out_share, seed)
    grouped = list(zip((*skin, *photographs), (*groups, *photograph_groups), strict=True))
    rows_of = {side: tuple(row for row, group in grouped if (group in apart) == side) for side in (False, True)}
    name = "+".join([*(catalog.name for catalog in catalogs), *(folder.resolve().name for folder in photo_folders)])
    return UnlabelledImages(
        Catalog(rows_of[False], name, synthetic=any(catalog.synthetic for catalog in catalogs)),
        Catalog(rows_of[True], name),
        len(left_out),
        len(photographs),
        other_files,
    )


def list_photographs(folders: Sequence[Path]) -> tuple[list[Row], int]:
    """Images below the folders in a fixed order, by file name ending, and how many other files lie there.

    Raises:
        DataError: where a folder does not exist or holds no image.
    """
    rows: list[Row] = []
    other_files = 0
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"no folder of photographs at {folder}", "Pass a folder that holds image files.")
        files = [path.relative_to(folder) for path in files_below(folder)]
        images = [name for name in files if name.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            raise DataError(
                f"{folder} holds no image; found {first_five(files) or 'nothing'}",
                f"Expected files ending in {', '.join(IMAGE_SUFFIXES)}.",
            )
        other_files += len(files) - len(images)
        for name in images:
            image_id = f"{folder.resolve().name}/{name.as_posix()}"
            rows.append(Row(image_id, folder / name, UNLABELLED, image_id, has_lesion_id=False))
    return rows, other_files


def _refuse_left_out(photographs: Sequence[Row], left_out: Sequence[Row]) -> None:
    """A folder may hold the catalogue's own images: those of val and test must not come in by that door."""
    paths = {row.path.resolve() for row in left_out if not row.member}
    names = {row.image_id for row in left_out}
    found = [row.image_id for row in photographs if row.path.stem in names or row.path.resolve() in paths]
    if found:
        raise DataError(
            f"{len(found)} photographs are images that the catalogue keeps from training: {first_five(found)}",
            "Pass a folder without images of val and test.",
        )


def _keep_apart(group_of_row: Sequence[str], share: float, seed: int) -> set[str]:
    """Groups that together hold the share of the images, or a little more."""
    sizes = Counter(group_of_row)
    groups = sorted(sizes)
    chosen: set[str] = set()
    held = 0
    for number in np.random.default_rng(derive_seed(seed, "held out")).permutation(len(groups)):
        if held >= share * len(group_of_row):
            break
        chosen.add(groups[number])
        held += sizes[groups[number]]
    return chosen
