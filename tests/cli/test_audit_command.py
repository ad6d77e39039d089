"""`lentigo data audit` as it is meant to be used: on drawings, whole and torn."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
FEW = ("--splits", 3, "--permutations", 20)


@pytest.fixture
def torn(split: Path, tmp_path: Path) -> Path:
    """The split with one lesion torn apart: a lesion of several images, one of them moved to the other side."""
    with split.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    lesions = [row["lesion_id"] for row in rows]
    moved = next(row for row in rows if lesions.count(row["lesion_id"]) > 1 and row["split"] == "train")
    moved["split"] = "val"
    path = tmp_path / "torn.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_clean_split(lentigo: Command, split: Path, tmp_path: Path) -> None:
    said = lentigo("data", "audit", split, "--no-near-duplicates", *FEW, "--out", "out/audit.json")
    assert said.code == 0
    for words in ("100 images", "not searched", "bytes per pixel", "split by image", "MEL"):
        assert words in said.out
    assert "synthetic" in said.err
    assert "written: out/audit.json" in said.err
    found = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    assert not found["has_leaks"]
    assert str(split.parent) not in json.dumps(found)


def test_a_torn_lesion_is_exit_3_and_a_result(lentigo: Command, torn: Path) -> None:
    said = lentigo("data", "audit", torn, "--no-near-duplicates", *FEW)
    assert said.code == 3
    assert "in train+val" in said.out
    assert "lentigo data split" in said.out
    again = lentigo("data", "audit", torn, "--no-near-duplicates", *FEW, "--json")
    assert again.code == 3
    assert again.json["has_leaks"]
    (lesions,) = [one for one in again.json["torn"] if one["kind"] == "lesions"]
    assert lesions["count"] == 1
    assert again.json["given"]["overall"]["value"] > 0


def test_a_data_set_without_split_or_ids(lentigo: Command, drawn: Path, tmp_path: Path) -> None:
    said = lentigo("data", "audit", drawn, "--no-near-duplicates", *FEW)
    assert said.code == 0
    assert "no given split" in said.out
    with drawn.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            folder = tmp_path / "folders" / row["dx"]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn.parent / row["file"], folder)
    said = lentigo("data", "audit", "folders", "--no-near-duplicates", *FEW)
    assert said.code == 0
    assert "100 images have no lesion id" in said.out


def test_pictures_are_searched(lentigo: Command, split: Path) -> None:
    said = lentigo("data", "audit", split, *FEW, "--json")
    (pictures,) = [one for one in said.json["torn"] if one["kind"] == "near-duplicates"]
    assert pictures["count"] is not None


def test_wrong_input(lentigo: Command, tmp_path: Path) -> None:
    assert lentigo("data", "audit", tmp_path / "none.csv").code == 3
    assert lentigo("data", "audit", tmp_path, "--splits", 1).code == 2
