"""Class maps against a by-hand Grad-CAM, the checks on a network whose evidence is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn

from lentigo.core.errors import ConfigError
from lentigo.data.preprocess import Preprocess
from lentigo.evaluation.explain import (
    CELLS_PER_SIDE,
    DELETION_STEPS,
    all_probabilities,
    check_explanations,
    class_maps,
    deletion_areas,
    overlay,
    randomised_network,
    spearman,
    to_heat,
)
from lentigo.evaluation.intervals import mean_estimate
from lentigo.models.checkpoint import ModelSpec
from lentigo.models.network import ARCHITECTURES, Architecture, build_network, find_architecture

SIZE_PX = 56


class RedFinder(nn.Module):
    """Class 4 is red, class 5 is green; each cell is 8 px, and nothing else is seen."""

    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 8, stride=8)
        self.classifier = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).relu().mean(dim=(2, 3)))


def red_finder() -> nn.Module:
    network = RedFinder(7, 0.0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.features.weight[0, 0] = network.features.weight[1, 1] = 1 / 64
        network.classifier.weight[4, 0] = network.classifier.weight[5, 1] = 40.0
    return network.eval()


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    architecture = Architecture(RedFinder, "classifier", "classifier.", "", "features", 8)
    monkeypatch.setitem(ARCHITECTURES, "red_finder", architecture)
    return ModelSpec(architecture="red_finder", preprocess=Preprocess(resize_steps_px=(SIZE_PX,)))


def red_patches(count: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Black images with one red cell each, away from the centre and the border."""
    images, places = torch.zeros(count, 3, SIZE_PX, SIZE_PX), []
    for number in range(count):
        row, column = 1 + number % 5, 1 + 4 * (number % 2)
        images[number, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1.0
        places.append((row, column))
    return images, places


def test_class_maps_agree_with_grad_cam_by_hand() -> None:
    torch.manual_seed(1)
    network = build_network("mobilenet_v2", 7).eval()
    inputs, targets = torch.randn(2, 3, 64, 64), np.array([4, 1])
    found = class_maps(network, "features.18", inputs, targets)

    def by_hand(images: Tensor) -> Tensor:
        maps = network.features(images).detach().requires_grad_()
        logits = network.classifier(maps.mean(dim=(2, 3)))
        (gradient,) = torch.autograd.grad(logits[0, 4] + logits[1, 1], maps)
        return (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1)

    expected = (by_hand(inputs) + by_hand(inputs.flip(2, 3)).flip(1, 2)) / 2
    assert found.shape == (2, 2, 2)
    assert found == pytest.approx(expected.detach().numpy(), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "mobilenet_v3_large"])
def test_every_architecture_has_a_map_even_frozen(architecture: str) -> None:
    network = build_network(architecture, 7)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    maps = class_maps(network, find_architecture(architecture).cam_layer, torch.randn(1, 3, 96, 96), np.array([0]))
    assert maps.shape == (1, 3, 3)
    assert np.isfinite(maps).all()


def test_a_layer_without_a_map_is_refused() -> None:
    network = build_network("mobilenet_v2", 7)
    for layer, size_px in (("classifier.1", 64), ("features.18", 32)):
        with pytest.raises(ConfigError, match="expected a map of 2 x 2 or more cells"):
            class_maps(network, layer, torch.randn(1, 3, size_px, size_px), np.array([0]))


def test_the_map_points_at_the_evidence(spec: ModelSpec) -> None:
    images, places = red_patches(4)
    maps = class_maps(red_finder(), "features", images, np.full(4, 4))
    assert [np.unravel_index(one.argmax(), one.shape) for one in maps] == places
    heat = to_heat(maps, SIZE_PX)
    assert heat.shape == (4, SIZE_PX, SIZE_PX)
    assert (heat.min(), heat.max()) == (0.0, 1.0)
    assert not to_heat(-maps, SIZE_PX).any(), "evidence against the class is not drawn"


def test_the_checks_tell_a_map_that_knows_from_one_that_does_not(spec: ModelSpec) -> None:
    network, count = red_finder(), 10
    images, _ = red_patches(count)
    targets, lesions = np.full(count, 4), [str(i) for i in range(count)]
    maps = class_maps(network, "features", images, targets)
    good = check_explanations(network, spec, images, targets, lesions, maps, resamples=200)
    assert (good.n_images, good.n_lesions, good.deletion.n) == (count, count, count)
    assert good.deletion.value < min(good.deletion_random.value, good.deletion_centre.value)
    assert good.beats_random.ci_low > 0
    assert good.beats_centre.ci_low > 0
    assert good.similarity_mirrored.value == pytest.approx(1.0, abs=1e-6)
    assert good.findings[0].endswith("better.")
    bad = check_explanations(network, spec, images, targets, lesions, -maps, resamples=200)
    assert bad.beats_random.ci_high < 0
    assert bad.findings[0].endswith("worse.")
    same = check_explanations(network, spec, images, targets, lesions, maps, resamples=200)
    assert same == good


def test_constant_maps_have_no_similarity(spec: ModelSpec) -> None:
    network, images = red_finder(), torch.zeros(3, 3, SIZE_PX, SIZE_PX)
    targets, lesions = np.full(3, 4), ["a", "b", "c"]
    maps = class_maps(network, "features", images, targets)
    found = check_explanations(network, spec, images, targets, lesions, maps, resamples=50)
    assert (found.similarity_mirrored.value, found.similarity_mirrored.n) == (None, 0)
    assert "not shown to depend" in found.findings[2]


def test_randomised_weights_are_seeded_and_leave_the_generator_alone(spec: ModelSpec) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (randomised_network(spec, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.weight"], other["features.weight"])


def test_deletion_area_agrees_with_its_definition() -> None:
    network = red_finder().requires_grad_(False)
    generator = np.random.default_rng(2)
    images = torch.from_numpy(generator.random((2, 3, SIZE_PX, SIZE_PX), dtype=np.float32))
    priority = generator.random((2, CELLS_PER_SIDE, CELLS_PER_SIDE)).astype(np.float32)
    found = deletion_areas(network, images, np.array([4, 5]), priority)
    cell_px = SIZE_PX // CELLS_PER_SIDE
    for number, target in enumerate((4, 5)):
        image, order = images[number].clone(), np.argsort(-priority[number], axis=None)
        rim = [image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]]
        border = torch.cat(rim, dim=1).mean(dim=1)
        curve = [float(network(image[None]).softmax(1)[0, target])]
        for part in np.split(order, DELETION_STEPS):
            for row, column in zip(*np.unravel_index(part, priority[number].shape), strict=True):
                y, x = row * cell_px, column * cell_px
                image[:, y : y + cell_px, x : x + cell_px] = border[:, None, None]
            curve.append(float(network(image[None]).softmax(1)[0, target]))
        area = sum((a + b) / 2 for a, b in pairwise(curve)) / DELETION_STEPS
        assert found[number] == pytest.approx(area, abs=1e-5)


def test_spearman_agrees_with_scipy() -> None:
    generator = np.random.default_rng(3)
    first, second = (np.round(generator.random((6, 4, 4)), 1).astype(np.float32) for _ in range(2))
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    assert spearman(first, second) == pytest.approx(expected)
    assert np.isnan(spearman(first, np.ones_like(first))).all()


def test_mean_of_defined_values() -> None:
    found = mean_estimate(np.array([1.0, 2.0, np.nan, 6.0]), ["a", "b", "c", "d"], resamples=200)
    assert (found.value, found.n) == (3.0, 3)
    assert 1.0 <= found.ci_low < found.ci_high <= 6.0
    assert mean_estimate(np.array([np.nan, np.nan]), ["a", "b"], resamples=20).value is None


def test_overlay() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    cold = overlay(image, np.zeros((7, 7), dtype=np.float32))
    assert np.array_equal(np.asarray(cold), np.asarray(image))
    heat = np.zeros((40, 60), dtype=np.float32)
    heat[:, 30:] = 1.0
    warm = np.asarray(overlay(image.convert("L"), heat), dtype=float)
    assert warm.shape == (40, 60, 3)
    assert np.array_equal(warm[:, :30], np.asarray(image.convert("L").convert("RGB"))[:, :30])
    assert (warm[:, 30:, 0] > warm[:, 30:, 2] + 50).all(), "yellow"


def test_probabilities_are_those_of_the_network() -> None:
    network, images = red_finder(), torch.rand(3, 3, SIZE_PX, SIZE_PX)
    probs = all_probabilities(network, images)
    assert probs == pytest.approx(network(images).softmax(1).detach().numpy(), abs=1e-6)
