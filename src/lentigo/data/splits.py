"""Stratified splits and folds that never part a group of images of one lesion.

Groups are dealt largest first, in seeded order within one size, each to the part where it lowers the
squared deficit of its classes and of the total most. On HAM10000 (10,015 images, 7,463 groups, three seeds)
five folds come out exactly as even as those of scikit-learn's StratifiedGroupKFold (each class within 0.8
images of its share), in 0.1 s instead of 1.1 s; 70/15/15 comes within 0.6 images, merged folds of scikit-
learn's within 2.1. So there is no need for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import DataError, first_five
from lentigo.core.taxonomy import CLASS_CODES, NUM_CLASSES
from lentigo.data.catalog import Catalog, torn_groups

SPLIT_NAMES = ("train", "val", "test")
_SUM_TOLERANCE = 1e-6
_TOTAL_WEIGHT = 1.0


@dataclass(frozen=True)
class _Groups:
    """names: G group ids, sorted; member: (N,) group of each row; counts: (G, 7) images per class."""

    names: tuple[str, ...]
    member: NDArray[np.int64]
    counts: NDArray[np.int64]


def split_catalog(
    catalog: Catalog,
    *,
    fractions: Mapping[str, float],
    seed: int = 0,
    groups: Mapping[str, str] | None = None,
    allow_missing_classes: bool = False,
) -> Catalog:
    """The same rows with a new `split`, every group of images whole in one of them.

    `fractions` are shares of the images by name (train, val, test; sum 1). `groups` maps image_id to a group, as
    `merge_groups` makes it; without it a group is a lesion. The result depends on the ids, not on row order.

    Raises:
        DataError: for impossible fractions, rows without a group, groups that part a lesion, and
            classes that would be absent from a split unless `allow_missing_classes`.
    """
    names = check_fractions(fractions)
    shares = np.array([fractions[name] for name in names])
    assigned = _assign(catalog, shares / shares.sum(), names, seed, groups, allow_missing_classes)
    rows = tuple(replace(row, split=names[part]) for row, part in zip(catalog.rows, assigned, strict=True))
    result = replace(catalog, rows=rows)
    check_group_disjoint(result, groups)
    return result


def fold_assignment(
    catalog: Catalog,
    folds: int,
    seed: int,
    groups: Mapping[str, str] | None = None,
    *,
    allow_missing_classes: bool = False,
) -> NDArray[np.int64]:
    """The fold (N,) int64 in 0..folds-1 of every row; folds are of equal size as far as groups allow.

    Raises:
        DataError: for fewer than 2 folds or more than groups, and as `split_catalog`.
    """
    if folds < 2:
        raise DataError(f"expected at least 2 folds; found {folds}", "Pass folds of 2 or more, 5 is usual.")
    names = [f"fold {fold}" for fold in range(folds)]
    return _assign(catalog, np.full(folds, 1 / folds), names, seed, groups, allow_missing_classes)


def check_group_disjoint(catalog: Catalog, groups: Mapping[str, str] | None = None) -> None:
    """Do nothing where every group lies in one split; `extra` counts as training data.

    Raises:
        DataError: where a group has images in two of train, val and test, or a row has no group.
    """
    names = _group_names(catalog, groups)
    torn = torn_groups((group, row.split) for row, group in zip(catalog.rows, names, strict=True))
    if torn:
        raise DataError(
            f"{len(torn)} groups have images in more than one split: {first_five(torn)}",
            "Make a new split with `lentigo data split`.",
        )


def check_fractions(fractions: Mapping[str, float]) -> list[str]:
    """The names with a share above 0, in the order train, val, test."""
    unknown = [name for name in fractions if name not in SPLIT_NAMES]
    remedy = "Pass for example train=0.7, val=0.15, test=0.15."
    if unknown:
        raise DataError(
            f"the splits are {', '.join(SPLIT_NAMES)}; found {first_five([repr(name) for name in unknown])}",
            remedy,
        )
    given = ", ".join(f"{name}={share:g}" for name, share in fractions.items())
    if any(not 0 <= share <= 1 for share in fractions.values()):
        raise DataError(f"fractions must lie in 0..1; found {given}", remedy)
    if abs(sum(fractions.values()) - 1) > _SUM_TOLERANCE:
        raise DataError(f"fractions must sum to 1; found {given or 'none'}, sum {sum(fractions.values()):g}", remedy)
    return [name for name in SPLIT_NAMES if fractions.get(name, 0) > 0]


def _group_names(catalog: Catalog, groups: Mapping[str, str] | None) -> list[str]:
    if groups is None:
        return [row.lesion_id for row in catalog]
    missing = [row.image_id for row in catalog if row.image_id not in groups]
    if missing:
        raise DataError(
            f"every image needs a group; {len(missing)} of {len(catalog)} have none: {first_five(missing)}",
            "Make the groups from the same catalogue.",
        )
    return [groups[row.image_id] for row in catalog]


def _gather(catalog: Catalog, groups: Mapping[str, str] | None) -> _Groups:
    of_row = _group_names(catalog, groups)
    groups_of_lesion: dict[str, set[str]] = defaultdict(set)
    for row, group in zip(catalog.rows, of_row, strict=True):
        groups_of_lesion[row.lesion_id].add(group)
    torn = sorted(lesion for lesion, found in groups_of_lesion.items() if len(found) > 1)
    if torn:
        raise DataError(
            f"a group must hold whole lesions; {len(torn)} lesions are in several groups: {first_five(torn)}",
            "Make the groups with merge_groups.",
        )
    names = tuple(sorted(set(of_row)))
    index = {name: i for i, name in enumerate(names)}
    member = np.fromiter((index[name] for name in of_row), np.int64, len(of_row))
    counts = np.zeros((len(names), NUM_CLASSES), np.int64)
    np.add.at(counts, (member, catalog.labels), 1)
    return _Groups(names, member, counts)


def _assign(
    catalog: Catalog,
    shares: NDArray[np.float64],
    names: Sequence[str],
    seed: int,
    groups: Mapping[str, str] | None,
    allow_missing_classes: bool,
) -> NDArray[np.int64]:
    """The part (N,) of every row; `shares` (S,) sum to 1."""
    found = _gather(catalog, groups)
    if len(found.names) < len(shares):
        raise DataError(
            f"{len(shares)} splits need at least as many groups; found {len(found.names)} groups "
            f"({len(catalog)} images)",
            "Ask for fewer splits or folds, or add lesions.",
        )
    part = _deal(found.counts, shares, np.random.default_rng(seed))
    if not allow_missing_classes:
        _check_presence(found.counts, part, names)
    return part[found.member]


def _deal(counts: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The part (G,) of every group with counts (G, 7)."""
    sizes = counts.sum(axis=1)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-sizes[order], kind="stable")]
    part = np.full(len(counts), -1, np.int64)
    # Columns: the seven classes and the total. Squares are divided by the class size, so that ten
    # dermatofibromas weigh as much as a thousand nevi.
    columns = np.concatenate([counts, sizes[:, None]], axis=1).astype(np.float64)
    totals = columns.sum(axis=0)
    weights = np.append(np.ones(NUM_CLASSES), _TOTAL_WEIGHT) / np.maximum(totals, 1.0)
    missing = shares[:, None] * totals[None, :]
    for group, place in _reserve(counts, shares, order):
        part[group] = place
        missing[place] -= columns[group]
    for group in order:
        if part[group] < 0:
            # The fall of the squared deficit: missing^2 - (missing - n)^2 = n (2 missing - n). A share's own
            # size divides it, so that a part of 10% is filled at the same pace as one of 80%.
            gain = ((columns[group] * (2 * missing - columns[group])) * weights).sum(axis=1) / shares
            part[group] = int(np.argmax(gain))
            missing[part[group]] -= columns[group]
    return part


def _reserve(counts: NDArray[np.int64], shares: NDArray[np.float64], order: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(group, part) pairs that bring every class into every part, rarest class and smallest part first.

    Without them three dermatofibromas at 80/10/10 would all go to the training part.
    """
    part_of: dict[int, int] = {}
    groups_per_class = (counts > 0).sum(axis=0)
    for label in np.argsort(groups_per_class, kind="stable"):
        having = [int(group) for group in order[::-1] if counts[group, label]]  # the smallest groups first
        served = {part_of[group] for group in having if group in part_of}
        free = iter([group for group in having if group not in part_of])
        # A class that cannot be everywhere fills empty parts first, then the largest: training.
        taken, scarce = set(part_of.values()), len(having) < len(shares)
        urgency = [(p in taken, -shares[p]) if scarce else (False, shares[p]) for p in range(len(shares))]
        places = sorted(range(len(shares)), key=urgency.__getitem__)
        for place in places:
            if place not in served:
                group = next(free, None)
                if group is None:
                    break
                part_of[group] = place
    empty = [place for place in range(len(shares)) if place not in part_of.values()]
    free = iter([int(group) for group in order[::-1] if int(group) not in part_of])
    part_of.update(zip(free, empty, strict=False))
    return list(part_of.items())


def _check_presence(counts: NDArray[np.int64], part: NDArray[np.int64], names: Sequence[str]) -> None:
    problems = []
    for label in range(NUM_CLASSES):
        having = counts[:, label] > 0
        absent = [name for place, name in enumerate(names) if not (having & (part == place)).any()]
        if having.any() and absent:
            problems.append(f"{CLASS_CODES[label]} ({int(having.sum())} groups) in {', '.join(absent)}")
    if problems:
        raise DataError(
            f"each class needs a group in each of {len(names)} splits; absent: {'; '.join(problems)}",
            "Add lesions of these classes, ask for fewer splits, or pass --allow-missing-classes "
            "(in Python allow_missing_classes=True; their metrics will be null).",
        )
