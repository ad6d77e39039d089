"""The demonstration, whole: drawn, split, trained, judged, reported, in one process and offline."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from lentigo.core.errors import ConfigError
from lentigo.demo import DemoOutcome, run_demo
from lentigo.training.events import Event, describe


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoOutcome, list[str], Path]:
    """What one epoch on 140 drawings leaves behind, and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    said: list[str] = []

    def listen(event: Event) -> None:
        said.extend(filter(None, [describe(event)]))

    return run_demo(folder, num_images=140, epochs=1, seed=0, listen=listen), said, folder


def test_demo_says_what_it_does(demo: tuple[DemoOutcome, list[str], Path]) -> None:
    _, said, _ = demo
    assert said[0] == "drawing 140 synthetic images"
    assert [line for line in said if line.startswith("epoch ")] == [said[-1]]


def test_demo_split_is_disjoint(demo: tuple[DemoOutcome, list[str], Path]) -> None:
    *_, folder = demo
    with (folder / "split.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    lesions = {split: {row["lesion_id"] for row in rows if row["split"] == split} for split in ("train", "val")}
    assert len(rows) == 140
    assert not lesions["train"] & lesions["val"]
    assert all(lesions.values())


def test_demo_judges_val(demo: tuple[DemoOutcome, list[str], Path]) -> None:
    outcome, *_ = demo
    metrics = json.loads(outcome.run.metrics.read_text(encoding="utf-8"))
    assert set(metrics) == {"val"}, "test was not opened"
    accuracy = metrics["val"]["metrics"]["accuracy"]
    assert 0 <= accuracy["ci_low"] <= accuracy["value"] <= accuracy["ci_high"] <= 1
    assert metrics["val"]["n_lesions"] == metrics["val"]["n_images"] > 20
    assert outcome.judgement.as_dict() | {"weights_sha256": metrics["val"]["weights_sha256"]} == metrics["val"]
    assert outcome.as_dict()["synthetic"] is True


def test_demo_report_says_synthetic(demo: tuple[DemoOutcome, list[str], Path]) -> None:
    outcome, *_ = demo
    page = outcome.report.read_text(encoding="utf-8")
    assert re.search(r"synthetic", page, re.IGNORECASE)
    assert "not photographs of patients" in page
    assert "<svg" in page
    assert not re.search(r"""(?:src|href)=["']https?://""", page), "self-contained"


def test_demo_figures(demo: tuple[DemoOutcome, list[str], Path]) -> None:
    outcome, _, folder = demo
    for name in ("class_balance", "images", "images_augmented"):
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for name in ("class_balance", "curves", "confusion_val", "per_class_val"):
        assert "synthetic" in outcome.run.figure(name).read_text(encoding="utf-8"), name


def test_demo_overwrites_nothing(demo: tuple[DemoOutcome, list[str], Path]) -> None:
    outcome, _, folder = demo
    before = outcome.report.stat().st_mtime_ns
    with pytest.raises(ConfigError, match="is not empty"):
        run_demo(folder, num_images=140, epochs=1, seed=0, listen=lambda event: None)
    assert outcome.report.stat().st_mtime_ns == before
