"""Every figure is written, says what it must and is the same twice."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import ConfigError, DataError
from lentigo.data.catalog import Catalog, Row
from lentigo.evaluation import figures
from lentigo.evaluation.metrics import Estimate

NOTE = "Drawn images, not patients."
LOG = [
    {
        "epoch": e,
        "train_loss": 1 / e,
        "val_loss": 1.2 / e,
        "train_accuracy": 0.5,
        "val_accuracy": 0.4 + 0.1 * (e == 2),
    }
    for e in range(1, 5)
]


def catalog(splits=("train", "val")):
    return Catalog(tuple(Row(f"i{i}", Path("i.jpg"), i % 7, f"l{i}", split=splits[i % len(splits)]) for i in range(30)))


def images(count):
    generator = np.random.default_rng(0)
    return [generator.integers(256, size=(20, 30, 3), dtype=np.uint8) for _ in range(count)]


DRAW = {
    "class_balance": lambda path: figures.class_balance(catalog(), path, note=NOTE),
    "no splits": lambda path: figures.class_balance(catalog(("",)), path, note=NOTE),
    "empty catalogue": lambda path: figures.class_balance(Catalog(()), path, note=NOTE),
    "image_grid": lambda path: figures.image_grid(images(5), list("abcde"), path, heading="Images", note=NOTE),
    "curves": lambda path: figures.curves(LOG, path, note=NOTE),
    "one epoch": lambda path: figures.curves(LOG[:1], path, note=NOTE),
    "gaps": lambda path: figures.curves([{"epoch": 1, "val_loss": math.nan}], path, note=NOTE),
    "confusion": lambda path: figures.confusion(np.arange(49).reshape(7, 7), path, note=NOTE),
    "per_class_bars": lambda path: figures.per_class_bars({"mel": Estimate(0.5, 0.3, 0.7, 12)}, path, note=NOTE),
}


@pytest.mark.parametrize("name", DRAW)
def test_figure_is_deterministic_svg_with_its_note(name, tmp_path):
    first = DRAW[name](tmp_path / "a.svg").read_bytes()
    assert first == DRAW[name](tmp_path / "b.svg").read_bytes()
    assert NOTE.encode() in first
    assert b"<dc:date>" not in first


@pytest.mark.parametrize("name", ["class_balance", "image_grid", "curves"])
def test_figure_is_written_as_png(name, tmp_path):
    with Image.open(DRAW[name](tmp_path / "a.png")) as image:
        assert image.format == "PNG"
        assert image.width == 960


def test_global_matplotlib_state_is_untouched(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    DRAW["curves"](tmp_path / "a.svg")
    assert dict(matplotlib.rcParams) == before


def test_the_kept_epoch_is_marked_with_its_reason(tmp_path):
    marked = figures.curves(LOG, tmp_path / "b.svg", kept_epoch=3, selection_metric="macro_f1").read_text()
    assert "dotted line: epoch 3, kept for its val macro F1" in marked
    assert "dotted line" not in figures.curves(LOG, tmp_path / "a.svg").read_text()


def test_figures_as_jpeg(tmp_path):
    with Image.open(DRAW["image_grid"](tmp_path / "a.jpg")) as image:
        assert image.format == "JPEG"


def test_grid_takes_pil_and_gray_images(tmp_path):
    mixed = [Image.new("L", (50, 40), 7), np.zeros((9, 9), dtype=np.uint8), *images(1)]
    assert figures.image_grid(mixed, ["a", "b", "c"], tmp_path / "grid.svg", rows=1, columns=3).is_file()


def test_class_without_images_says_so(tmp_path):
    assert "no images" in DRAW["per_class_bars"](tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda p: figures.confusion(np.eye(3), p), DataError, r"\(7, 7\)"),
        (lambda p: figures.curves([], p), DataError, "epoch"),
        (lambda p: figures.image_grid(images(2), ["a"], p), DataError, "2 images and 1 titles"),
        (lambda p: figures.image_grid([np.zeros((4, 4, 3))], ["a"], p), DataError, "float64"),
        (lambda p: figures.curves(LOG, p.with_suffix(".pdf")), ConfigError, ".svg, .png or .jpg"),
    ],
)
def test_wrong_input_is_refused(draw, error, message, tmp_path):
    with pytest.raises(error, match=message):
        draw(tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())
