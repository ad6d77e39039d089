"""Shared fixtures: drawn images, the real data where there is a copy, one thread for torch."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

# With two threads on busy cores torch is ten times slower than with one; set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

from lentigo.core.taxonomy import parse_label
from lentigo.data.catalog import Catalog, Row
from lentigo.data.synthetic import write_synthetic

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep torch to one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder ham10000; skips where there is none."""
    folder = Path(os.environ.get("LENTIGO_DATA", REPOSITORY.parent / "shared" / "ham10000"))
    if not folder.is_dir():
        pytest.skip(f"no HAM10000 copy at {folder}; set LENTIGO_DATA")
    return folder


@pytest.fixture(scope="session")
def pretrained() -> Path:
    """The folder of published weights; skips where there is none."""
    folder = Path(os.environ.get("LENTIGO_WEIGHTS", REPOSITORY.parent / "shared" / "weights"))
    if not folder.is_dir():
        pytest.skip(f"no weights at {folder}; set LENTIGO_WEIGHTS")
    return folder


def _draw_catalog(folder: Path, num_images: int, size_px: int) -> Catalog:
    table = write_synthetic(folder / "synthetic", num_images=num_images, size_px=size_px, seed=3)
    rows: list[Row] = []
    lesions: dict[str, int] = {}
    with table.open(encoding="utf-8", newline="") as stream:
        for record in csv.DictReader(stream):
            number = lesions.setdefault(record["lesion_id"], len(lesions))
            rows.append(
                Row(
                    record["image_id"],
                    table.parent / record["file"],
                    parse_label(record["dx"]),
                    record["lesion_id"],
                    dx_type=record["dx_type"],
                    primary=record["primary"] == "1",
                    split="val" if number % 4 == 3 else "train",
                )
            )
    return Catalog(tuple(rows), "synthetic", synthetic=True)


@pytest.fixture(scope="session")
def synthetic_catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """60 drawings of 64 px; every fourth lesion is val, the others train."""
    return _draw_catalog(tmp_path_factory.mktemp("drawn"), 60, 64)


@pytest.fixture(scope="session")
def tiny_catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """26 drawings of 32 px to train on and 9 to judge, one of each lesion: for trainings of a second."""
    catalog = _draw_catalog(tmp_path_factory.mktemp("tiny"), 60, 32)
    train = [row for row in catalog if row.split == "train" and row.primary][:26]
    val = [row for row in catalog if row.split == "val" and row.primary][:9]
    assert (len(train), len(val)) == (26, 9), "26 do not fill whole batches of 4; 9 do not share out over 2"
    return Catalog((*train, *val), "tiny", synthetic=True)
