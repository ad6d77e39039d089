"""A run explained: which images are chosen, what is written, and what is read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import CheckpointError, ConfigError, DataError
from lentigo.core.files import write_text_atomic
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import Catalog
from lentigo.evaluation.explain_run import (
    choose_images,
    explain_run,
    overlay_name,
    overlay_thumbnails,
    read_explanations,
)
from lentigo.evaluation.run_metrics import WEIGHTS_KEY, present_weights

from .untrained import untrained_run


def test_overlay_names() -> None:
    assert overlay_name("ISIC_1", "mel") == "ISIC_1-mel.jpg"
    assert overlay_name("../a folder/b.c", "nv") == ".._a_folder_b.c-nv.jpg"


def table() -> Predictions:
    labels = np.array([0, 0, 0, 1, 1, 2, 3, 4, 5, 6])
    answers = np.array([0, 0, 0, 2, 2, 0, 3, 4, 5, 6])
    logits = np.zeros((10, 7), dtype=np.float32)
    logits[np.arange(10), answers] = [1, 2, 3, 5, 4, 9, 1, 1, 1, 1]
    names = tuple(f"i{n}" for n in range(10))
    return Predictions(names, names, labels, logits)


def test_chosen_images() -> None:
    chosen = choose_images(table(), 1)
    assert list(chosen.items()) == [
        (5, "sure error"),
        (3, "frequent confusion"),
        (1, "right answer"),
        *((i, "right answer") for i in (6, 7, 8, 9)),
    ]
    assert list(choose_images(table(), 3))[:3] == [5, 3, 4]


@pytest.fixture
def run(synthetic_catalog: Catalog, tmp_path: Path) -> RunDir:
    """An untrained MobileNetV2 at 64 px with made-up predictions of val."""
    folder = untrained_run(tmp_path / "run", synthetic_catalog, color_mode="gray")
    rows = [row for row in synthetic_catalog if row.split == "val" and row.primary]
    logits = np.random.default_rng(0).normal(size=(len(rows), 7)).astype(np.float32)
    names = tuple(row.image_id for row in rows)
    labels = np.array([row.label for row in rows])
    Predictions(names, tuple(row.lesion_id for row in rows), labels, logits).to_csv(folder.predictions("val"))
    return folder


def test_a_run_is_explained_and_read_again(run: RunDir) -> None:
    found = explain_run(run, count=2, resamples=50)
    assert found.split == "val"
    assert found.synthetic
    assert {one.why for one in found.images} >= {"sure error"}
    for one in found.images:
        picture = Image.open(run.explanations / one.file)
        assert (picture.size, picture.mode, picture.format) == ((64, 64), "RGB", "JPEG")
        assert one.shown == one.answer
    assert read_explanations(run) == found
    thumbnails = overlay_thumbnails(run, found)
    assert [one for one, _ in thumbnails] == list(found.images)
    assert all(len(content) < 20_000 for _, content in thumbnails)
    (run.explanations / found.images[0].file).unlink()
    assert len(overlay_thumbnails(run, found)) == len(found.images) - 1


def test_given_files_and_a_given_class(run: RunDir, synthetic_catalog: Catalog) -> None:
    files = [row.path for row in synthetic_catalog.rows[:2]]
    code = CLASS_CODES[4]
    found = explain_run(run, files, code=code, resamples=50)
    assert [one.file for one in found.images] == [f"given/{path.stem}-{code}.jpg" for path in files]
    assert all((one.why, one.truth, one.shown) == ("given", None, code) for one in found.images)
    assert read_explanations(run) is None, "given files do not end up in the report"
    with pytest.raises(DataError, match="several files are called"):
        explain_run(run, [files[0], files[0]])


def test_what_was_not_judged_is_not_explained(run: RunDir) -> None:
    with pytest.raises(DataError, match="not judged on test"):
        explain_run(run, split="test")
    with pytest.raises(ConfigError, match="val or test"):
        explain_run(run, split="train")
    with pytest.raises(DataError, match="unknown class"):
        explain_run(run, code="wart")
    assert not run.explanations.exists()
    assert not run.looks.exists()


def test_predictions_of_other_weights_are_not_explained(run: RunDir, synthetic_catalog: Catalog) -> None:
    def judged_with(digest: str) -> None:
        write_text_atomic(run.metrics, json.dumps({"val": {WEIGHTS_KEY: digest}}))

    judged_with("0" * 64)
    with pytest.raises(CheckpointError, match=r"predictions of val .* training went on since") as raised:
        explain_run(run)
    assert "Judge val again" in raised.value.remedy
    assert not run.explanations.exists()
    explain_run(run, [synthetic_catalog.rows[0].path], resamples=50)  # a given file has no stored prediction
    judged_with(present_weights(run))
    explain_run(run, count=1, resamples=50)


def test_a_damaged_check_is_named(run: RunDir) -> None:
    for text in ("{", "[]", json.dumps({"split": "val"})):
        write_text_atomic(run.explanation_check, text)
        with pytest.raises(DataError, match="damaged"):
            read_explanations(run)
