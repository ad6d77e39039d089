"""`lentigo evaluate` with corrupted images and images of other kinds, on the shared tiny run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lentigo.evaluation.measure_outliers import CORRUPTED
from lentigo.evaluation.robustness import predict_corrupted

Command = Callable[..., Any]
KINDS = ("jpeg", "ink")


@pytest.fixture
def two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the kinds of corruption instead of all: a tenth of the time."""
    monkeypatch.setitem(predict_corrupted.__kwdefaults__, "kinds", KINDS)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of nothing."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("two_kinds")
def test_corrupted_images_and_images_of_other_kinds(lentigo: Command, copied: Path, pictures: Path) -> None:
    options = ("--corruptions", "--outliers", "--photos", pictures, "--resamples", 100, "--json")
    said = lentigo("evaluate", copied, *options)
    assert said.code == 0, said.err
    robustness, outliers = said.json["robustness"], said.json["outliers"]
    assert [kind["kind"] for kind in robustness["kinds"]] == list(KINDS)
    assert robustness == json.loads((copied / "robustness.json").read_text(encoding="utf-8"))
    assert outliers == json.loads((copied / "outliers" / "judgement.json").read_text(encoding="utf-8"))
    assert set(outliers["scores"]["mahalanobis"]["kinds"]) == {*CORRUPTED, "pictures"}
    assert outliers["scores"]["mahalanobis"]["kinds"]["pictures"]["rejected"]["n"] == 3
    page, card = ((copied / name).read_text(encoding="utf-8") for name in ("report.html", "MODEL_CARD.md"))
    for heading in ("Damaged images", "Images of other kinds"):
        assert f"<h2>{heading}</h2>" in page
    assert "pictures: rejected" in page
    assert "pictures: rejected" in card
    assert not (copied / "test_looks.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--outliers", "--split", "test"), "--outliers judges a gate on val images; found --split test"),
        (("--corruptions", "--split", "test"), "--corruptions judges val images; found --split test"),
        (("--photos", "pictures"), "found no --outliers"),
    ],
)
def test_what_does_not_fit(lentigo: Command, copied: Path, options: tuple[str, ...], message: str) -> None:
    said = lentigo("evaluate", copied, "--resamples", 100, *options)
    assert said.code == 2
    assert message in said.err
    assert not (copied / "test_looks.json").exists()
    assert not (copied / "outliers").exists()
