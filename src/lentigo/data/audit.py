"""Leakage: what a score could be owed to other than the picture of an unseen lesion.

Three questions of a data set. Does a lesion, a patient or a picture stand in two splits? Do facts of the files (size,
folder, camera) tell the class? And what would a split by image, which most published scores rest on, have leaked?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import GROUPINGS, Catalog, side, torn_groups
from lentigo.data.duplicates import fingerprint, near_duplicate_pairs
from lentigo.data.file_facts import ALL, Predictability, file_facts, predictability
from lentigo.data.sources import scan_source

HELD_OUT = ("val", "test")
IMAGE_SPLIT_SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
"""Sizes of the random splits by image where the data set has no split of its own."""


@dataclass(frozen=True, slots=True)
class Torn:
    """Groups of one kind with images on two sides of the split: how many, and the first five.

    `n_checked` groups (for near-duplicates: pairs of different lesion ids) were looked at; None: not looked for.
    """

    kind: str
    count: int | None
    n_checked: int | None
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """Share of held-out images whose lesion is also in train: mean and standard deviation over the splits.

    `n` is the mean number of held-out images; without any, value is None. One split has no deviation.
    """

    value: float | None
    sd: float | None
    n: float


@dataclass(frozen=True, slots=True)
class SplitLeak:
    """What splits of these sizes leak from train to val and test, over all classes and per class code."""

    n_splits: int
    n_train: int
    n_held_out: int
    overall: Share
    per_class: dict[str, Share]

    @property
    def named(self) -> dict[str, Share]:
        """All classes together under `all`, then each."""
        return {ALL: self.overall, **self.per_class}


class Audit(BaseModel):
    """The whole audit. `given` is None where the data set has no split with train and a held-out part."""

    model_config = ConfigDict(frozen=True)

    name: str
    n_images: int
    n_lesions: int
    n_without_lesion_id: int
    n_unusable_rows: int
    images_per_split: dict[str, int]
    torn: tuple[Torn, ...]
    facts: tuple[Predictability, ...]
    given: SplitLeak | None
    by_image: SplitLeak
    permutations: int
    seed: int
    synthetic: bool = False

    @property
    def has_leaks(self) -> bool:
        """Whether anything stands on two sides of the given split."""
        return any(torn.count for torn in self.torn)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self.model_dump(mode="json"), "has_leaks": self.has_leaks}


def audit_source(
    source: Path,
    *,
    images: Path | None = None,
    near_duplicates: bool = True,
    splits: int = 20,
    permutations: int = 200,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Look for leaks in a data set. Pixels are read for the near-duplicates alone, else file headers only.

    `splits` random splits by image and `permutations` of the classes are drawn from `seed`. The facts of files in
    `test` are left out: nothing is ever fitted on the test split, not even this.

    Raises:
        DataError: where the source as a whole cannot be read, or has no usable rows.
    """
    catalog, problems, _ = scan_source(source, images=images)
    if not len(catalog):
        raise DataError(f"{catalog.name} has no usable rows", "`lentigo data check` lists every problem.")
    open_rows = catalog.filter(lambda row: row.split != "test")
    sides = np.array([side(row.split) for row in catalog])
    has_split = "train" in sides and bool(np.isin(sides, HELD_OUT).any())
    return Audit(
        name=catalog.name,
        n_images=len(catalog),
        n_lesions=len({row.lesion_id for row in catalog}),
        n_without_lesion_id=sum(not row.has_lesion_id for row in catalog),
        n_unusable_rows=len(problems),
        images_per_split=dict(sorted(Counter(row.split or "none" for row in catalog).items())),
        torn=(*_torn_ids(catalog), _torn_pictures(catalog, near_duplicates, threads, progress)),
        facts=tuple(predictability(open_rows, file_facts(open_rows), permutations=permutations, seed=seed)),
        given=leaked_shares(catalog, sides[None, :]) if has_split else None,
        by_image=leaked_shares(catalog, _image_splits(sides, has_split, splits, seed)),
        permutations=permutations,
        seed=seed,
        synthetic=catalog.synthetic,
    )


def _torn_ids(catalog: Catalog) -> list[Torn]:
    """The ids that `Catalog.check_disjoint` refuses; kinds that the data set does not have are left out."""
    found = []
    for kind, column in GROUPINGS:
        groups = {getattr(row, column) for row in catalog} - {""}
        torn = torn_groups((getattr(row, column), row.split) for row in catalog)
        if groups:
            found.append(Torn(kind=kind, count=len(torn), n_checked=len(groups), examples=tuple(torn[:5])))
    return found


def _torn_pictures(catalog: Catalog, search: bool, threads: int, progress: Callable[[int, int], None] | None) -> Torn:
    if not search:
        return Torn(kind="near-duplicates", count=None, n_checked=None, examples=())
    row_of = {row.image_id: row for row in catalog}
    pairs = near_duplicate_pairs(fingerprint(catalog.rows, threads=threads, progress=progress), threads=threads)
    rows = [(row_of[pair.first], row_of[pair.second]) for pair in pairs]
    others = [(first, second) for first, second in rows if first.lesion_id != second.lesion_id]
    torn = [
        f"{first.image_id} ({first.split}) ~ {second.image_id} ({second.split})"
        for first, second in others
        if first.split and second.split and side(first.split) != side(second.split)
    ]
    return Torn(kind="near-duplicates", count=len(torn), n_checked=len(others), examples=tuple(torn[:5]))


def leaked_shares(catalog: Catalog, sides: NDArray[np.str_]) -> SplitLeak:
    """The share of val and test images whose lesion is also in train, in each of the splits `sides` (S, N)."""
    lesion_of = np.unique([row.lesion_id for row in catalog], return_inverse=True)[1]
    held_out, leaked = np.isin(sides, HELD_OUT), np.zeros(sides.shape, np.bool_)
    for split, names in enumerate(sides):
        in_train = np.zeros(lesion_of.max() + 1, np.bool_)
        in_train[lesion_of[names == "train"]] = True
        leaked[split] = held_out[split] & in_train[lesion_of]
    return SplitLeak(
        n_splits=len(sides),
        n_train=int((sides[0] == "train").sum()),
        n_held_out=int(held_out[0].sum()),
        overall=_share(leaked, held_out),
        per_class={
            code: _share(leaked[:, catalog.labels == label], held_out[:, catalog.labels == label])
            for label, code in enumerate(CLASS_CODES)
        },
    )


def _share(leaked: NDArray[np.bool_], held_out: NDArray[np.bool_]) -> Share:
    counts = held_out.sum(axis=1)
    shares = leaked.sum(axis=1)[counts > 0] / counts[counts > 0]
    return Share(
        value=float(shares.mean()) if len(shares) else None,
        sd=float(shares.std(ddof=1)) if len(shares) > 1 else None,
        n=float(counts.mean()),
    )


def _image_splits(sides: NDArray[np.str_], is_split: bool, count: int, seed: int) -> NDArray[np.str_]:
    """`count` splits (S, N) that deal images at random, lesions or not, into parts as large as the given ones."""
    generator = np.random.default_rng(seed)
    if not is_split:
        places = np.cumsum([len(sides) * share for share in IMAGE_SPLIT_SHARES.values()])
        sides = np.array(list(IMAGE_SPLIT_SHARES))[np.searchsorted(places[:-1], np.arange(len(sides)), side="right")]
    dealt = np.flatnonzero(sides != "")
    result = np.tile(sides, (count, 1))
    for split in range(count):
        result[split, dealt] = generator.permutation(sides[dealt])
    return result
