"""The image cache: the same pixels from memory, a file or the disk, and all unreadable images named."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lentigo.core.config import DataConfig
from lentigo.core.errors import DataError
from lentigo.data import cache
from lentigo.data.cache import open_images
from lentigo.data.catalog import Catalog
from lentigo.data.preprocess import Preprocess

GRAY = Preprocess(color_mode="gray", resize_steps_px=(40, 32))
RGB = Preprocess(color_mode="rgb", resize_steps_px=(40,))


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LENTIGO_CACHE", str(folder))
    return folder


@pytest.fixture
def catalog(synthetic_catalog: Catalog) -> Catalog:
    return Catalog(synthetic_catalog.rows[:12])


def settings(kind: str, limit_mb: int = 100) -> DataConfig:
    return DataConfig(cache=kind, cache_limit_mb=limit_mb)  # type: ignore[arg-type, call-arg]


def pixels(source: cache.ImageSource) -> list[np.ndarray]:
    return [np.asarray(source[index]) for index in range(len(source))]


@pytest.mark.parametrize("preprocess", [GRAY, RGB], ids=["gray", "rgb"])
@pytest.mark.parametrize("kind", ["memory", "disk", "auto"])
def test_cached_pixels_are_the_decoded_ones(catalog: Catalog, preprocess: Preprocess, kind: str) -> None:
    plain = open_images(catalog, preprocess, settings("none"))
    assert len(plain.cached) == 0
    seen: list[tuple[int, int]] = []
    source = open_images(catalog, preprocess, settings(kind), lambda done, total: seen.append((done, total)))
    assert len(source.cached) == len(source) == 12
    assert seen == [(i, 12) for i in range(1, 13)]
    for cached, decoded in zip(pixels(source), pixels(plain), strict=True):
        np.testing.assert_array_equal(cached, decoded)
    assert source[0].mode == ("L" if preprocess.color_mode == "gray" else "RGB")


def test_the_file_is_made_once_and_again_when_an_image_changes(
    catalog: Catalog, cache_folder: Path, tmp_path: Path
) -> None:
    copies = []
    for row in catalog:
        copy = tmp_path / row.path.name
        copy.write_bytes(row.path.read_bytes())
        copies.append(replace(row, path=copy))
    own = Catalog(tuple(copies))
    calls: list[int] = []
    for _ in range(2):
        source = open_images(own, RGB, settings("disk"), lambda done, total: calls.append(done))
    assert len(calls) == 12
    assert isinstance(source.cached, np.memmap)
    assert len(list(cache_folder.iterdir())) == 1
    copies[3].path.write_bytes(copies[4].path.read_bytes())
    os.utime(copies[3].path, ns=(1, 1))
    again = open_images(own, RGB, settings("disk"))
    assert len(list(cache_folder.iterdir())) == 2
    np.testing.assert_array_equal(again[3], again[4])
    open_images(own, GRAY, settings("disk"))
    assert len(list(cache_folder.iterdir())) == 3


def test_the_limit_bounds_memory_and_the_rest_comes_from_disk(synthetic_catalog: Catalog) -> None:
    large = Preprocess(resize_steps_px=(240,))
    catalog = Catalog(synthetic_catalog.rows[:9])
    source = open_images(catalog, large, settings("memory", limit_mb=1))
    assert len(source.cached) == 2**20 // (240 * 240 * 3) == 6
    plain = open_images(catalog, large, settings("none"))
    for cached, decoded in zip(pixels(source), pixels(plain), strict=True):
        np.testing.assert_array_equal(cached, decoded)


def test_auto_goes_to_disk_when_memory_is_short(
    catalog: Catalog, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "available_memory_bytes", lambda: 10_000)
    source = open_images(catalog, RGB, settings("auto"))
    assert isinstance(source.cached, np.memmap)
    assert len(list(cache_folder.iterdir())) == 1


@pytest.mark.parametrize(("kind", "limit_mb"), [("none", 100), ("memory", 1), ("disk", 1)])
def test_images_that_are_not_kept_are_looked_at_too(
    synthetic_catalog: Catalog, tmp_path: Path, kind: str, limit_mb: int
) -> None:
    rows = list(synthetic_catalog.rows[:9])
    large = Preprocess(resize_steps_px=(240,))  # six of them fit
    seen: list[tuple[int, int]] = []
    for _ in range(2):  # the second time with a file of the cache that is there
        source = open_images(Catalog(tuple(rows)), large, settings(kind, limit_mb), lambda *done: seen.append(done))
        assert len(source.cached) == (0 if kind == "none" else 6)
    assert set(seen) == (set() if kind == "none" else {(i, 6) for i in range(1, 7)})
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no image")
    rows[7], rows[8] = replace(rows[7], path=broken), replace(rows[8], path=tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"2 of \d images cannot be read: .*broken\.jpg") as error:
        open_images(Catalog(tuple(rows)), large, settings(kind, limit_mb))
    assert "gone.jpg" in error.value.message
    rows[0] = replace(rows[0], path=broken)
    with pytest.raises(DataError, match=r"3 of 9 images cannot be read"):
        open_images(Catalog(tuple(rows)), large, settings(kind, limit_mb))


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_all_unreadable_images_are_named_at_once(
    catalog: Catalog, cache_folder: Path, tmp_path: Path, kind: str
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(catalog.rows[0].path.read_bytes()[:200])
    rows = list(catalog.rows)
    rows[2], rows[5] = replace(rows[2], path=broken), replace(rows[5], path=broken)
    with pytest.raises(DataError, match="2 of 12 images cannot be read") as error:
        open_images(Catalog(tuple(rows)), RGB, settings(kind))
    assert error.value.message.count("broken.jpg") == 2
    assert not cache_folder.exists() or list(cache_folder.iterdir()) == []


def test_a_missing_image_file_is_named_whatever_the_cache(catalog: Catalog, tmp_path: Path) -> None:
    rows = (replace(catalog.rows[0], path=tmp_path / "gone.jpg"), *catalog.rows[1:])
    for kind in ("memory", "disk", "none"):
        with pytest.raises(DataError, match=r"gone\.jpg"):
            open_images(Catalog(rows), RGB, settings(kind))


def test_a_cache_folder_that_cannot_be_written(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("LENTIGO_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(DataError, match="cannot write the image cache") as error:
        open_images(catalog, RGB, settings("disk"))
    assert "LENTIGO_CACHE" in error.value.remedy


def test_an_empty_catalogue_gives_an_empty_source() -> None:
    for kind in ("auto", "memory", "disk", "none"):
        assert len(open_images(Catalog(()), RGB, settings(kind))) == 0
