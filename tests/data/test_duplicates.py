"""Duplicates: copies of every kind are found, different lesions are not, groups are merged."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import parse_label
from lentigo.data.catalog import Catalog, Row
from lentigo.data.duplicates import DuplicatePair, fingerprint, known_groups, merge_groups, near_duplicate_pairs


def draw_lesion(seed: int, size_px: int = 200) -> Image.Image:
    """A dark blob on skin, all at one place, with texture of its own."""
    rng = np.random.default_rng(seed)
    field = np.zeros((size_px, size_px))
    for cells in (6, 12, 25, 50):
        noise = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
        field += np.asarray(noise.resize((size_px, size_px), Image.Resampling.BICUBIC))
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    blob = 1 / (1 + np.exp((np.hypot(x, y) - 0.45) * 14))
    gray = 190 + 6 * field - blob * (100 + 12 * field)
    colours = np.stack([gray, gray * 0.8, gray * 0.7], axis=2)
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


def rows_of(folder: Path) -> list[Row]:
    return [Row(path.stem, path, 5, f"lesion_{path.stem}") for path in sorted(folder.iterdir())]


def test_different_lesions_are_no_duplicates(tmp_path: Path) -> None:
    for seed in range(25):
        draw_lesion(seed).save(tmp_path / f"{seed:02d}.jpg")
    assert near_duplicate_pairs(fingerprint(rows_of(tmp_path), threads=2)) == []


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((120, 120)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "recoloured": lambda image: ImageEnhance.Color(image).enhance(0.3),
    "mirrored": ImageOps.mirror,
    "flipped": ImageOps.flip,
    "left turn": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "right turn": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "upside down": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "transposed": lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    "transversed": lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    "zoomed": lambda image: image.crop((16, 16, 184, 184)),
    "zoomed more": lambda image: image.crop((30, 30, 170, 170)),
    "shifted": lambda image: image.crop((0, 0, 192, 192)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("original_first", [True, False])
def test_a_changed_copy_is_found(tmp_path: Path, change: str, original_first: bool) -> None:
    for seed in range(3):
        draw_lesion(seed).save(tmp_path / f"m{seed}.jpg", quality=90)
    name = "z" if original_first else "a"
    CHANGES[change](draw_lesion(1)).save(tmp_path / f"{name}.jpg", quality=80)
    pairs = near_duplicate_pairs(fingerprint(rows_of(tmp_path), threads=1))
    assert [(pair.first, pair.second) for pair in pairs] == [tuple(sorted(("m1", name)))]
    assert not pairs[0].exact
    assert 0 <= pairs[0].distance <= 12
    assert 0.2 < pairs[0].correlation <= 1


def test_identical_files_pair_with_the_first_and_blank_ones_with_nothing_else(tmp_path: Path) -> None:
    draw_lesion(1).save(tmp_path / "a.jpg")
    for name in ("b", "c"):
        shutil.copy(tmp_path / "a.jpg", tmp_path / f"{name}.jpg")
    Image.new("RGB", (50, 50), "white").save(tmp_path / "white.png")
    Image.new("RGB", (50, 50), "black").save(tmp_path / "black.png")
    pairs = near_duplicate_pairs(fingerprint(rows_of(tmp_path), threads=1))
    assert pairs == [DuplicatePair("a", "b", 0, 1.0, True), DuplicatePair("a", "c", 0, 1.0, True)]
    assert near_duplicate_pairs([]) == []


def test_fingerprints_tell_kind_size_colour_and_problem(tmp_path: Path) -> None:
    image = draw_lesion(1, 150)
    image.save(tmp_path / "a.jpg")
    image.resize((90, 60)).save(tmp_path / "b.png")
    image.convert("L").save(tmp_path / "c.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    image.crop((0, 0, 150, 100)).save(tmp_path / "d.jpg", exif=turned)
    (tmp_path / "e.jpg").write_bytes(b"")
    (tmp_path / "f.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    (tmp_path / "g.jpg").write_text("<html>")
    Image.new("1", (20_000, 6_000)).save(tmp_path / "h.png")
    rows = [*rows_of(tmp_path), Row("i", tmp_path / "gone.jpg", 5, "i")]
    seen: list[tuple[int, int]] = []
    found = fingerprint(rows, threads=2, progress=lambda done, total: seen.append((done, total)))
    assert [(f.file_kind, f.width, f.height, f.grayscale, f.problem) for f in found] == [
        ("jpeg", 150, 150, False, ""),
        ("png", 90, 60, False, ""),
        ("jpeg", 150, 150, True, ""),
        ("jpeg", 100, 150, False, ""),
        ("", 0, 0, False, "zero-byte"),
        ("jpeg", 0, 0, False, "truncated"),
        ("", 0, 0, False, "not-an-image"),
        ("png", 0, 0, False, "huge"),
        ("", 0, 0, False, "missing-file"),
    ]
    assert seen == [(9, 9)]
    assert all(bool(f.detail) == bool(f.problem) for f in found)
    assert near_duplicate_pairs(found[4:]) == []


def test_groups_are_merged_by_lesions_pairs_and_patients() -> None:
    def row(image: str, lesion: str, patient: str = "") -> Row:
        return Row(image, Path("none.jpg"), 5, lesion, patient_id=patient)

    rows = (
        row("1", "c"),
        row("2", "c"),
        row("3", "b"),
        row("4", "d", "p"),
        row("5", "a", "p"),
        row("6", "e"),
    )
    pairs = [DuplicatePair("2", "3", 4, 0.5, False)]
    expected = {"1": "b", "2": "b", "3": "b", "4": "a", "5": "a", "6": "e"}
    assert merge_groups(Catalog(rows), pairs) == expected
    assert merge_groups(Catalog(rows[::-1]), pairs) == expected
    grouped = [replace(row, group_id="g") if row.image_id in ("1", "6") else row for row in rows]
    assert merge_groups(Catalog(tuple(grouped)), pairs) == expected | {"6": "b"}
    with pytest.raises(DataError, match="1 are not in it: 9"):
        merge_groups(Catalog(rows), [DuplicatePair("1", "9", 0, 1.0, True)])


def test_known_groups_hold_lesions_whose_patient_or_group_is_partly_known_together() -> None:
    def row(image: str, lesion: str, patient: str = "", group: str = "") -> Row:
        return Row(image, Path("none.jpg"), 5, lesion, patient_id=patient, group_id=group)

    rows = (
        row("1", "a", patient="p"),
        row("2", "a"),
        row("3", "b", patient="p", group="g"),
        row("4", "c", group="g"),
        row("5", "d"),
    )
    assert known_groups(rows) == ["a", "a", "a", "a", "d"]
    assert known_groups(rows[::-1]) == ["d", "a", "a", "a", "a"]


@pytest.mark.parametrize("column", ["group_id", "patient_id", "lesion_id"])
def test_known_groups_are_named_as_their_complete_ids_are(column: str) -> None:
    rows = [
        Row(f"{n}", Path("none.jpg"), 5, f"lesion {n // 2}", patient_id=f"p{n // 4}", group_id=f"g{n // 8}")
        for n in range(32)
    ]
    finer = {"group_id": (), "patient_id": ("group_id",), "lesion_id": ("group_id", "patient_id")}[column]
    rows = [replace(row, **dict.fromkeys(finer, "")) for row in rows]
    assert known_groups(rows) == [getattr(row, column) for row in rows]


@pytest.mark.real_data
def test_the_known_duplicates_of_ham10000_are_found_among_other_lesions(real_data: Path) -> None:
    known = {
        ("ISIC_0025226", "ISIC_0030074"), ("ISIC_0027636", "ISIC_0027994"), ("ISIC_0032740", "ISIC_0034283"),
        ("ISIC_0033374", "ISIC_0033417"), ("ISIC_0033421", "ISIC_0033481"), ("ISIC_0033490", "ISIC_0033631"),
        ("ISIC_0034228", "ISIC_0034248"),
    }  # fmt: skip
    wanted = {name for pair in known for name in pair}
    with (real_data / "ham10000.csv").open(newline="") as stream:
        records = list(csv.DictReader(stream))
    rows = [
        Row(r["image_id"], real_data / r["file"], parse_label(r["dx"]), r["lesion_id"])
        for number, r in enumerate(records)
        if r["image_id"] in wanted or number % 20 == 0
    ]
    lesion = {row.image_id: row.lesion_id for row in rows}
    pairs = near_duplicate_pairs(fingerprint(rows, threads=2), threads=2)
    assert {(p.first, p.second) for p in pairs if lesion[p.first] != lesion[p.second]} == known
