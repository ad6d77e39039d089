"""Augmentation: same size and mode, nothing when off, seeded by the draw alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lentigo.core.config import AugmentConfig, DataConfig
from lentigo.core.recipes import load_recipe, recipe_names
from lentigo.data.augment import Augment
from lentigo.data.cache import open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset, TrainingDataset
from lentigo.data.preprocess import Preprocess
from lentigo.data.sampling import Draw


def augment(**values: float) -> Augment:
    return Augment(AugmentConfig.model_validate(values))


def picture(mode: str = "RGB", size: int = 40) -> Image.Image:
    pixels = np.random.default_rng(1).integers(60, 200, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_neutral_settings_change_nothing(mode: str) -> None:
    image = picture(mode)
    np.testing.assert_array_equal(augment()(image), image)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "values",
    [
        {"rotation_degrees": 15}, {"shift": 0.1}, {"zoom": 0.1}, {"brightness": 0.2}, {"contrast": 0.2},
        {"crop_min_area": 0.5}, {"saturation": 0.5}, {"hue": 0.3},
        {"min_resolution": 0.3}, {"grayscale": 1.0},
        {"rotation_degrees": 180, "shift": 0.5, "zoom": 0.5, "brightness": 2.0, "crop_min_area": 0.1},
    ],
    ids=lambda values: "+".join(values),
)  # fmt: skip
def test_every_switch_changes_pixels_and_keeps_size_and_mode(mode: str, values: dict[str, float]) -> None:
    torch.manual_seed(2)
    image = picture(mode)
    changed = augment(**values)(image)
    assert (changed.mode, changed.size) == (image.mode, image.size)
    color_only = mode == "L" and set(values) <= {"saturation", "hue", "grayscale"}
    assert np.array_equal(changed, image) is color_only


def test_flips() -> None:
    image = picture()
    np.testing.assert_array_equal(augment(horizontal_flip=1)(image), np.asarray(image)[:, ::-1])
    np.testing.assert_array_equal(augment(vertical_flip=1)(image), np.asarray(image)[::-1])
    torch.manual_seed(0)
    flipped = [not np.array_equal(augment(horizontal_flip=0.5)(image), image) for _ in range(200)]
    assert 70 < sum(flipped) < 130


def test_ranges_of_brightness_and_shift() -> None:
    torch.manual_seed(0)
    image = Image.fromarray(np.full((40, 40), 100, np.uint8))
    means = [np.asarray(augment(brightness=0.2)(image)).mean() for _ in range(200)]
    assert 80 <= min(means) < 83
    assert 117 < max(means) <= 120
    dot = np.zeros((41, 41), np.uint8)
    dot[20, 20] = 255
    places = np.array([np.argwhere(np.asarray(augment(shift=0.1)(Image.fromarray(dot))))[0] for _ in range(200)])
    assert places.min() == 16
    assert places.max() == 24


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_from_outside_take_the_colour_of_the_border(mode: str) -> None:
    torch.manual_seed(0)
    image = Image.fromarray(np.full((40, 40, 3), (200, 120, 90), np.uint8)).convert(mode)
    for _ in range(10):
        changed = augment(rotation_degrees=180, shift=0.3, zoom=0.5)(image)
        np.testing.assert_allclose(np.asarray(changed, int), np.asarray(image, int), atol=1)


WHOLE_RECIPES = [name for name in recipe_names() if load_recipe(name).mining.method == "none"]
"""Those that state all of a training; a round of mining takes its augmentation from the run that it continues."""


@pytest.mark.parametrize("name", WHOLE_RECIPES)
def test_recipes_augment_their_own_colour_mode(name: str) -> None:
    recipe = load_recipe(name)
    image = Preprocess(**recipe.preprocess.model_dump()).first_step(picture(size=64))
    torch.manual_seed(0)
    changed = Augment(recipe.augment)(image)
    assert (changed.mode, changed.size) == (image.mode, image.size)
    assert not np.array_equal(changed, image)


def test_a_draw_decides_alone_and_leaves_the_generator_alone(synthetic_catalog: Catalog) -> None:
    preprocess = Preprocess(resize_steps_px=(48, 32))
    images = open_images(Catalog(synthetic_catalog.rows[:6]), preprocess, DataConfig())  # type: ignore[call-arg]
    data = TrainingDataset(images, augment(rotation_degrees=90, brightness=0.3), seed=4)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = data[Draw(2, 17)]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(999)
    assert torch.equal(data[Draw(2, 17)].image, first.image)
    assert not torch.equal(data[Draw(2, 18)].image, first.image)
    other_seed = TrainingDataset(images, data.augment, seed=5)
    assert not torch.equal(other_seed[Draw(2, 17)].image, first.image)
    assert first.image.shape == (3, 32, 32)
    assert (first.label, first.index) == (synthetic_catalog.rows[2].label, 2)


def test_the_evaluation_view_is_the_contract_alone(synthetic_catalog: Catalog) -> None:
    preprocess = Preprocess(resize_steps_px=(48, 32))
    data = LesionDataset(open_images(synthetic_catalog, preprocess, DataConfig()))  # type: ignore[call-arg]
    assert len(data) == len(synthetic_catalog)
    for index in (0, 7, len(data) - 1):
        with Image.open(synthetic_catalog.rows[index].path) as image:
            expected = preprocess(image.convert("RGB"))
        np.testing.assert_array_equal(data[index].image.numpy(), expected)
        assert torch.equal(data[index].image, data[index].image)
        assert data[index].label == synthetic_catalog.rows[index].label
