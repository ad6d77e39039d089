"""From a data set on disk to split tables: load, find near-duplicates, merge, split, write."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import ConfigError, DataError, first_five
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import Catalog
from lentigo.data.duplicates import Fingerprint, fingerprint, merge_groups, near_duplicate_pairs
from lentigo.data.sources import load_catalog
from lentigo.data.splits import check_fractions, check_group_disjoint, fold_assignment, split_catalog

Progress = Callable[[int, int], None]

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.15, "test": 0.15}
"""Shares of the images where none are named."""


@dataclass(frozen=True)
class MadeSplits:
    """The tables written and what is in them; one table, or one per fold."""

    catalogs: tuple[Catalog, ...]
    files: tuple[Path, ...]
    merged_groups: int

    def as_dict(self) -> dict[str, Any]:
        """Counts of the first table, per split and class."""
        first = self.catalogs[0]
        counts = Counter((row.split, row.label) for row in first)
        splits = [name for name in ("train", "val", "test") if any(row.split == name for row in first)]
        return {
            "files": [str(file) for file in self.files],
            "n_images": len(first),
            "n_lesions": len({row.lesion_id for row in first}),
            "merged_groups": self.merged_groups,
            "counts": {name: {code: counts[name, label] for label, code in enumerate(CLASS_CODES)} for name in splits},
        }


def make_splits(
    source: Path,
    out: Path,
    *,
    images: Path | None,
    fractions: Mapping[str, float] | None,
    folds: int | None,
    seed: int,
    near_duplicates: bool,
    allow_missing_classes: bool,
    force: bool,
    progress: Progress,
) -> MadeSplits:
    """Write `out`, or for k folds `out` with -1 .. -k before its ending (fold i is val, the others train).

    Without fractions and folds the shares are DEFAULT_FRACTIONS.

    Raises:
        ConfigError: for fractions and folds together, and where `out` does not end in .csv.
        DataError: for bad data and, with `near_duplicates`, images that cannot be decoded, for impossible splits,
            and where a file exists and `force` is false.
    """
    if folds is not None and fractions is not None:
        raise ConfigError("expected --fractions or --folds; found both", "Pass one of them.")
    if folds is None:
        fractions = DEFAULT_FRACTIONS if fractions is None else fractions
        check_fractions(fractions)  # before minutes of comparing images
    if out.suffix.lower() != ".csv":
        raise ConfigError(f"a split table is a .csv file; found {out.name!r}", f"Use {out.stem}.csv.")
    files = [out] if folds is None else [out.with_stem(f"{out.stem}-{i}") for i in range(1, folds + 1)]
    existing = [str(file) for file in files if file.exists()]
    if existing and not force:
        raise DataError(f"{', '.join(existing)} exists already", "Choose another --out, or replace it with --force.")
    catalog = load_catalog(source, images=images)
    if near_duplicates:
        fingerprints = fingerprint(catalog.rows, threads=os.cpu_count() or 1, progress=progress)
        _refuse_broken(fingerprints)
        groups = merge_groups(catalog, near_duplicate_pairs(fingerprints))
        catalog = _with_file_facts(catalog, fingerprints)
    else:
        groups = merge_groups(catalog, ())
    catalog = replace(catalog, rows=tuple(replace(row, group_id=groups[row.image_id]) for row in catalog))
    if fractions is not None:
        catalogs = [
            split_catalog(
                catalog,
                fractions=fractions,
                seed=seed,
                groups=groups,
                allow_missing_classes=allow_missing_classes,
            )
        ]
    else:
        assert folds is not None
        fold = fold_assignment(catalog, folds, seed, groups, allow_missing_classes=allow_missing_classes)
        catalogs = [_with_fold_as_val(catalog, fold, held_out) for held_out in range(folds)]
    # Lesions come here from `extra`, where none of their images need be primary.
    catalogs = [part.with_judged_images() for part in catalogs]
    for part, file in zip(catalogs, files, strict=True):
        check_group_disjoint(part, groups)
        part.to_csv(file)
    return MadeSplits(tuple(catalogs), tuple(files), len(set(groups.values())))


def _refuse_broken(fingerprints: Sequence[Fingerprint]) -> None:
    broken = [item.detail for item in fingerprints if item.problem]
    if broken:
        raise DataError(
            f"{len(broken)} of {len(fingerprints)} images cannot be read: {first_five(broken)}",
            "Restore the files or remove their rows; `lentigo data check` lists them all by kind.",
        )


def _with_file_facts(catalog: Catalog, fingerprints: Sequence[Fingerprint]) -> Catalog:
    rows = (
        replace(row, sha256=item.sha256, width=item.width, height=item.height)
        for row, item in zip(catalog.rows, fingerprints, strict=True)
    )
    return replace(catalog, rows=tuple(rows))


def _with_fold_as_val(catalog: Catalog, fold: NDArray[np.int64], held_out: int) -> Catalog:
    rows = (
        replace(row, split="val" if part == held_out else "train") for row, part in zip(catalog.rows, fold, strict=True)
    )
    return replace(catalog, rows=tuple(rows))
