"""The browser's preprocessing against Pillow, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image

from lentigo.data.preprocess import Preprocess

if TYPE_CHECKING:
    from tests.web.conftest import Node

SHAPES = ((450, 600), (300, 225), (1, 1), (2, 301), (97, 31), (500, 60), (224, 224), (33, 700), (28, 28), (65, 64))
SIZES = ((224, 224), (64, 48), (1, 1))
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def is_pillows(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> bool:
    """Equal; by at most a level apart for a Pillow that does not yet take tall images' columns first."""
    distance = np.abs(found.reshape(expected.shape).astype(int) - expected)
    return bool(distance.max() <= (0 if int(PIL.__version__.split(".")[0]) >= 13 else 1))


def draw(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """Noise of clipped levels with hard edges: it makes bicubic overshoot on both ends."""
    generator = np.random.default_rng(seed)
    pixels = generator.normal(128, 90, size=shape)
    pixels[: shape[0] // 2] = generator.choice([0, 255], size=pixels[: shape[0] // 2].shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_pillows(node: Node, interpolation: str, channels: int) -> None:
    pictures = [draw(shape if channels == 1 else (*shape, 3), seed) for seed, shape in enumerate(SHAPES)]
    cases = [(picture, size) for picture in pictures for size in SIZES]
    calls = [["resizeImage", node.image(picture), *size, interpolation] for picture, size in cases]
    for (picture, size), found in zip(cases, node.call("preprocess.js", calls), strict=True):
        expected = np.asarray(Image.fromarray(picture).resize(size, FILTERS[interpolation]))
        assert is_pillows(node.values(found["data"]), expected), (picture.shape, size)


@pytest.mark.parametrize("color_mode", ["rgb", "gray"])
@pytest.mark.parametrize("resize_rule", ["squash", "crop"])
@pytest.mark.parametrize("interpolation", FILTERS)
def test_finished_square_is_that_of_python(node: Node, color_mode: str, resize_rule: str, interpolation: str) -> None:
    values = {"color_mode": color_mode, "resize_rule": resize_rule, "interpolation": interpolation}
    chains = [Preprocess(resize_steps_px=steps, **values) for steps in ((96,), (28, 112), (64, 31, 96))]
    cases = [(draw((*shape, 3), seed), chain) for seed, shape in enumerate(SHAPES) for chain in chains]
    calls = [["finishedSquare", node.image(picture), chain.model_dump(mode="json")] for picture, chain in cases]
    for (picture, chain), found in zip(cases, node.call("preprocess.js", calls), strict=True):
        square = np.asarray(chain.remaining_steps(chain.first_step(Image.fromarray(picture))))
        expected = np.stack([square] * 3, axis=-1) if square.ndim == 2 else square
        assert is_pillows(node.values(found), expected), (picture.shape, chain)


def test_gray_is_pillows_for_every_colour_of_a_grid(node: Node) -> None:
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    picture = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    (found,) = node.call("preprocess.js", [["toGray", node.image(picture)]])
    expected = np.asarray(Image.fromarray(picture).convert("L"))
    assert (node.values(found["data"]).reshape(expected.shape) == expected).all()
