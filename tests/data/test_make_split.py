"""From a data set to split tables: what is read, what is kept together, what is refused."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import DataError
from lentigo.data.catalog import Catalog, Row
from lentigo.data.make_split import MadeSplits, make_splits


def make_source(folder: Path, rows: list[Row]) -> Path:
    """A catalogue with a noise image a row."""
    for number, row in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / row.path)
    return Catalog(tuple(replace(row, path=folder / row.path) for row in rows)).to_csv(folder / "source.csv")


def split(source: Path, *, near_duplicates: bool = True, folds: int | None = None) -> MadeSplits:
    return make_splits(
        source,
        source.with_name("out.csv"),
        images=None,
        fractions=None,
        folds=folds,
        seed=0,
        near_duplicates=near_duplicates,
        allow_missing_classes=True,
        force=False,
        progress=lambda done, total: None,
    )


@pytest.mark.parametrize("near_duplicates", [True, False])
def test_groups_of_an_earlier_split_stay_together(tmp_path: Path, near_duplicates: bool) -> None:
    rows = [Row(f"i{n}", Path(f"{n}.png"), n % 7, f"L{n}", group_id=f"g{n // 4}", split="train") for n in range(40)]
    made = split(make_source(tmp_path, rows), near_duplicates=near_duplicates)
    given = {row.image_id: row.group_id for row in rows}
    splits = defaultdict(set)
    for row in made.catalogs[0]:
        splits[given[row.image_id]].add(row.split)
    assert made.merged_groups == 10
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "val", "test"}


@pytest.mark.parametrize("folds", [None, 3])
def test_lesions_from_extra_are_judged_in_their_new_split(tmp_path: Path, folds: int | None) -> None:
    rows = [Row(f"i{n}", Path(f"{n}.png"), 5, f"L{n // 2}", primary=False, split="extra") for n in range(30)]
    for part in split(make_source(tmp_path, rows), near_duplicates=False, folds=folds).catalogs:
        assert [row.image_id for row in part if row.primary] == [f"i{n}" for n in range(0, 30, 2)]


def test_files_that_cannot_be_decoded_are_refused(tmp_path: Path) -> None:
    source = make_source(tmp_path, [Row(f"i{n}", Path(f"{n}.png"), 5, f"L{n}") for n in range(12)])
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(b"" if number else b"<html>")
    with pytest.raises(DataError, match=r"7 of 12 images cannot be read: .*0\.png is not an image.* and 2 more"):
        split(source)
    assert not (tmp_path / "out.csv").exists()
