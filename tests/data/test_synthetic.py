"""Synthetic lesions: deterministic, varied, learnable, and marked as synthetic wherever they go."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.synthetic import CSV_COLUMNS, SYNTHETIC_NOTICE, draw_lesion, write_synthetic
from lentigo.data.synthetic_camera import NOISE_HEADROOM, add_sensor_noise


def read_rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def tiny(pixels: NDArray[np.uint8], side_px: int = 8) -> NDArray[np.float32]:
    """A small, blurred version in [0, 1]: what is left when artefacts and noise are gone."""
    small = Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("data") / "synthetic", num_images=90, seed=3, size_px=64)


@pytest.mark.parametrize("code", CLASS_CODES)
def test_same_seed_draws_the_same_image(code: str) -> None:
    first, again = (draw_lesion(code, lesion_seed=7, view=2, size_px=160) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, draw_lesion(code, lesion_seed=8, view=2, size_px=160))


@pytest.mark.parametrize("size_px", [32, 33, 97, 300, 601])
def test_any_size(size_px: int) -> None:
    pixels = draw_lesion("mel", lesion_seed=1, size_px=size_px)
    assert pixels.shape == (size_px, size_px, 3)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 3.0


@pytest.mark.parametrize("code", CLASS_CODES)
def test_every_lesion_can_be_drawn_without_warnings(code: str) -> None:
    with np.errstate(all="raise"):
        for seed in range(60):
            pixels = draw_lesion(code, lesion_seed=seed, view=seed % 3, size_px=72)
            assert 20.0 < pixels.mean() < 245.0


@pytest.mark.parametrize("level", [NOISE_HEADROOM, 128, 255 - NOISE_HEADROOM])
def test_sensor_noise_never_wraps_around(level: int) -> None:
    picture = np.full((64, 64, 3), level, np.uint8)
    for seed in range(20):
        noisy = add_sensor_noise(picture, np.random.default_rng(seed)).astype(int)
        assert 0 < np.abs(noisy - level).max() <= NOISE_HEADROOM


def test_views_of_one_lesion_differ_less_than_lesions() -> None:
    """Sorted grey levels of the centre do not see rotation; a mean over lesions evens out cast and light."""

    def signature(seed: int, view: int) -> NDArray[np.float32]:
        pixels = draw_lesion("nv", lesion_seed=seed, view=view, size_px=96)
        return np.sort(tiny(pixels, 16)[3:13, 3:13].reshape(-1, 3), axis=0)

    views = np.stack([[signature(seed, view) for view in range(2)] for seed in range(40)])
    same = np.abs(views[:, 0] - views[:, 1]).mean()
    other = np.abs(views[:, 0] - np.roll(views[:, 1], 1, axis=0)).mean()
    assert 0.0 < same < 0.8 * other
    assert not np.array_equal(
        draw_lesion("nv", lesion_seed=0, view=0, size_px=64),
        draw_lesion("nv", lesion_seed=0, view=1, size_px=64),
    )


def test_classes_can_be_learnt_across_lesions() -> None:
    """Ridge regression on colour and texture statistics, lesion-disjoint; chance is 1/7."""

    def features(code: str, seed: int) -> NDArray[np.float32]:
        pixels = draw_lesion(code, lesion_seed=seed, size_px=96).astype(np.float32) / 255.0
        centre, edge = pixels[28:68, 28:68].reshape(-1, 3), pixels[8:88, 8:88].reshape(-1, 3)
        detail = np.abs(np.diff(pixels[24:72, 24:72], axis=0)).mean((0, 1))
        quantiles = np.quantile(centre, (0.05, 0.5, 0.95), axis=0).ravel()
        return np.concatenate([centre.mean(0) - edge.mean(0), centre.std(0), detail, quantiles, np.ones(1)])

    x = np.stack([features(code, seed) for code in CLASS_CODES for seed in range(60)])
    y = np.repeat(np.arange(len(CLASS_CODES)), 60)
    x[:, :-1] = (x[:, :-1] - x[:, :-1].mean(0)) / x[:, :-1].std(0)
    train = np.tile(np.arange(60) < 40, len(CLASS_CODES))
    targets = np.eye(len(CLASS_CODES))[y[train]]
    weights = np.linalg.solve(x[train].T @ x[train] + np.eye(x.shape[1]), x[train].T @ targets)
    accuracy = float(((x[~train] @ weights).argmax(1) == y[~train]).mean())
    assert accuracy > 0.35
    assert accuracy < 0.97


def test_csv_has_the_columns_and_rules_of_ham10000(dataset: Path) -> None:
    rows = read_rows(dataset)
    assert dataset.read_text(encoding="utf-8").splitlines()[0] == ",".join(CSV_COLUMNS)
    assert [row["image_id"] for row in rows] == [f"SYNTH_{number:07d}" for number in range(1, 91)]
    assert {row["dx_type"] for row in rows} == {"synthetic"}
    lesions: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        lesions.setdefault(row["lesion_id"], []).append(row)
        assert (dataset.parent / row["file"]).is_file()
    assert len(lesions) < len(rows)
    for views in lesions.values():
        assert [row["primary"] for row in views] == ["1"] + ["0"] * (len(views) - 1)
        shared = ("dx", "age", "sex", "localization")
        assert len({tuple(row[name] for name in shared) for row in views}) == 1


def test_28_images_hold_two_lesions_of_every_class(tmp_path: Path) -> None:
    rows = read_rows(write_synthetic(tmp_path / "few", num_images=28, views_per_lesion=4.0, size_px=32))
    lesions = Counter(row["dx"] for row in rows if row["primary"] == "1")
    assert set(lesions) == set(CLASS_CODES)
    assert min(lesions.values()) >= 2


def test_same_seed_writes_the_same_data_and_longer_sets_begin_alike(dataset: Path, tmp_path: Path) -> None:
    longer = write_synthetic(tmp_path / "again", num_images=95, seed=3, size_px=64)
    assert longer.read_text(encoding="utf-8").startswith(dataset.read_text(encoding="utf-8"))
    name = "images/SYNTH_0000090.jpg"
    assert (longer.parent / name).read_bytes() == (dataset.parent / name).read_bytes()


def test_shares_are_kept(tmp_path: Path) -> None:
    table = write_synthetic(
        tmp_path / "two", num_images=120, size_px=32, class_shares={"nv": 3, "mel": 1}, views_per_lesion=1.0
    )
    counts = Counter(row["dx"] for row in read_rows(table))
    assert set(counts) == {"nv", "mel"}
    assert 80 <= counts["nv"] <= 100
    assert {row["primary"] for row in read_rows(table)} == {"1"}


def test_everything_says_synthetic(dataset: Path) -> None:
    with Image.open(dataset.parent / "images" / "SYNTH_0000001.jpg") as image:
        assert image.format == "JPEG"
        assert image.size == (64, 64)
        assert b"synthetic" in image.info["comment"]
    assert SYNTHETIC_NOTICE in (dataset.parent / "README.txt").read_text(encoding="utf-8")


def test_nothing_is_overwritten_and_nothing_half_done_stays(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not an empty folder"):
        write_synthetic(taken, num_images=2, size_px=32)
    with pytest.raises(DataError, match="16 px"):
        write_synthetic(tmp_path / "new", num_images=2, size_px=16)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert write_synthetic(empty, num_images=2, size_px=32).is_file()


@pytest.mark.parametrize(
    ("code", "size_px", "seed"),
    [("wart", 300, 0), ("NV", 300, 0), ("nv", 31, 0), ("nv", 2049, 0), ("nv", 64, -1)],
)
def test_bad_requests_are_refused_with_a_remedy(code: str, size_px: int, seed: int) -> None:
    with pytest.raises(DataError) as caught:
        draw_lesion(code, lesion_seed=seed, size_px=size_px)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "request_",
    [
        {"num_images": 0},
        {"seed": -1},
        {"views_per_lesion": 0.5},
        {"jpeg_quality": 0},
        {"class_shares": {"wart": 1.0}},
        {"class_shares": {"nv": 0.0}},
        {"class_shares": {"nv": float("nan")}},
    ],
)
def test_bad_data_sets_are_refused(tmp_path: Path, request_: dict[str, object]) -> None:
    with pytest.raises(DataError):
        write_synthetic(tmp_path / "bad", **request_)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
