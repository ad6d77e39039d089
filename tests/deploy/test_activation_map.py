"""Class activation maps against Grad-CAM by gradients, and what is drawn of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from lentigo.core.errors import CheckpointError, ConfigError, DataError
from lentigo.core.taxonomy import CLASS_CODES, NUM_CLASSES
from lentigo.data.synthetic import draw_lesion
from lentigo.deploy.activation_map import OPACITY, activation_maps, activation_overlay, color, overlay
from lentigo.deploy.classifier import Classifier
from lentigo.evaluation.explain import class_maps


class TorchTwin(nn.Module):
    """The network that the tiny graph is."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        super().__init__()
        convolution = nn.Conv2d(3, 12, 4, stride=4, bias=False)
        self.features = nn.Sequential(convolution, nn.ReLU())
        self.classifier = nn.Linear(12, NUM_CLASSES)
        convolution.weight.data = torch.from_numpy(weights["convolution"])
        self.classifier.weight.data = torch.from_numpy(weights["head_weight"])
        self.classifier.bias.data = torch.from_numpy(weights["head_bias"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> Classifier:
    return Classifier.load(tiny_model, views=4, threads=1)


@pytest.fixture(scope="module")
def pixels(classifier: Classifier) -> NDArray[np.uint8]:
    """Two squares a class."""
    drawn = [draw_lesion(code, lesion_seed=seed, size_px=64) for seed in (1, 2) for code in CLASS_CODES]
    return np.stack([classifier.prepare(one).pixels for one in drawn])


def test_maps_are_those_of_captum(
    classifier: Classifier, pixels: NDArray[np.uint8], tiny_weights: dict[str, NDArray[np.float32]]
) -> None:
    preprocess = classifier.spec.preprocess
    inputs = torch.from_numpy(np.stack([preprocess.to_input(Image.fromarray(one)) for one in pixels]))
    targets = np.arange(len(pixels)) % NUM_CLASSES
    expected = np.maximum(class_maps(TorchTwin(tiny_weights), "features", inputs, targets), 0)
    highest = expected.max(axis=(1, 2), keepdims=True)
    assert (highest > 0).mean() > 0.7, "maps of nothing would agree with anything"
    found = activation_maps(classifier, pixels, [CLASS_CODES[target] for target in targets])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected / np.where(highest > 0, highest, 1), atol=2e-5)


def test_a_class_that_nothing_speaks_for_has_an_empty_map(
    classifier: Classifier, pixels: NDArray[np.uint8], tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "export")
    values = json.loads((tmp_path / "export" / "model.json").read_text())
    values["head_weight"] = [[-abs(weight) for weight in row] for row in values["head_weight"]]
    (tmp_path / "export" / "model.json").write_text(json.dumps(values))
    contrary = Classifier.load(tmp_path, threads=1)
    assert not activation_maps(contrary, pixels[:1], ["mel"]).any()
    np.testing.assert_array_equal(activation_overlay(contrary, pixels[0], "mel"), pixels[0])


def test_heat_lies_where_the_evidence_is(classifier: Classifier, tiny_weights: dict[str, NDArray[np.float32]]) -> None:
    """One cell of the grid holds the pattern that excites a channel, all others what excites none."""
    kernel = tiny_weights["convolution"][0].transpose(1, 2, 0)
    preprocess = classifier.spec.preprocess
    quiet = np.asarray(preprocess.mean) * 255
    square = np.tile(quiet, (32, 32, 1))
    square[8:12, 20:24] = np.where(kernel > 0, 255, 0)
    square = np.rint(square).astype(np.uint8)
    code = CLASS_CODES[int(tiny_weights["head_weight"][:, 0].argmax())]
    maps = activation_maps(classifier, square[None], [code])
    assert np.unravel_index(maps[0].argmax(), maps[0].shape) == (2, 5)
    drawn = np.asarray(activation_overlay(classifier, square, code), dtype=int)
    changed = np.abs(drawn - square).max(axis=2)
    assert changed[8:12, 20:24].mean() > 5 * changed[16:, :12].mean()


def test_what_has_no_map(tiny_gray_model: Path, classifier: Classifier, pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(ConfigError, match="lentigo explain"):
        activation_maps(Classifier.load(tiny_gray_model, threads=1), pixels[:1], ["mel"])
    with pytest.raises(DataError, match="one class an image, 2; found 1"):
        activation_maps(classifier, pixels[:2], ["mel"])
    with pytest.raises(DataError, match="unknown class"):
        activation_maps(classifier, pixels[:1], ["melanom a"])
    with pytest.raises(DataError, match="found none"):
        activation_maps(classifier, pixels[:0], [])


def test_a_head_of_another_graph_is_noticed(pixels: NDArray[np.uint8], tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "export")
    values = json.loads((tmp_path / "export" / "model.json").read_text())
    values["head_weight"] = [row[:-1] for row in values["head_weight"]]
    (tmp_path / "export" / "model.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="11 channels"):
        activation_maps(Classifier.load(tmp_path, threads=1), pixels[:1], ["mel"])


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_overlays_have_the_image_s_size(mode: str) -> None:
    image = Image.fromarray(draw_lesion("nv", lesion_seed=3, size_px=90)).resize((90, 60)).convert(mode)
    heat = np.zeros((7, 7), dtype=np.float32)
    heat[0, 0] = 1.0
    drawn = overlay(image, heat)
    assert (drawn.mode, drawn.size) == ("RGB", (90, 60))
    plain = np.asarray(image.convert("RGB"), dtype=int)
    difference = np.abs(np.asarray(drawn, dtype=int) - plain)
    assert not difference[20:, 30:].any(), "no heat, no change"
    expected = (1 - OPACITY) * plain[0, 0] + OPACITY * color(np.ones(1, np.float32))[0]
    np.testing.assert_allclose(np.asarray(drawn)[0, 0], expected, atol=0.51)


def test_colors_get_brighter_all_the_way() -> None:
    shades = color(np.linspace(0, 1, 200, dtype=np.float32))
    assert shades.min() >= 0
    assert shades.max() <= 255
    assert (np.diff(shades @ np.array((0.299, 0.587, 0.114))) > 0).all()


@settings(max_examples=20, deadline=None)
@given(arrays.arrays(np.uint8, (2, 32, 32, 3)), st.sampled_from(CLASS_CODES))
def test_maps_are_shares_of_the_most(tiny_model: Path, squares: NDArray[np.uint8], code: str) -> None:
    found = activation_maps(Classifier.load(tiny_model, threads=1), squares, [code, code])
    assert found.shape == (2, 8, 8)
    highest = found.max(axis=(1, 2))
    assert (found >= 0).all()
    assert all(one == 0 or one == pytest.approx(1) for one in highest)
