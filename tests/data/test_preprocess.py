"""The evaluation contract equals torchvision's transforms on pillow images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torchvision import transforms

from lentigo.core.recipes import load_recipe
from lentigo.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

FILTERS = {
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
}


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def oracle(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """The pipeline in torchvision's own words."""
    interpolation = FILTERS[preprocess.interpolation]
    first, *later = preprocess.resize_steps_px
    steps: list[object] = [transforms.Grayscale(3)] if preprocess.color_mode == "gray" else []
    if preprocess.resize_rule == "crop":
        steps += [transforms.Resize(first, interpolation), transforms.CenterCrop(first)]
    else:
        steps += [transforms.Resize((first, first), interpolation)]
    steps += [transforms.Resize((size, size), interpolation) for size in later]
    steps += [transforms.ToTensor(), transforms.Normalize(preprocess.mean, preprocess.std)]
    return transforms.Compose(steps)(image).numpy()


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    color_mode=st.sampled_from(["gray", "rgb"]),
    resize_rule=st.sampled_from(["squash", "crop"]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    steps=st.sampled_from([(300, 224), (224,), (33, 17), (16, 31, 20)]),
    seed=st.integers(0, 2**16),
)
def test_equals_torchvision(
    width: int,
    height: int,
    color_mode: str,
    resize_rule: str,
    interpolation: str,
    steps: tuple[int, ...],
    seed: int,
) -> None:
    if resize_rule == "crop" and max(width, height) > 20 * min(width, height):
        width = height
    preprocess = Preprocess(
        color_mode=color_mode,  # type: ignore[arg-type]
        resize_rule=resize_rule,  # type: ignore[arg-type]
        interpolation=interpolation,  # type: ignore[arg-type]
        resize_steps_px=steps,
    )
    image = noise(width, height, seed=seed)
    found = preprocess(image)
    assert found.shape == (3, steps[-1], steps[-1])
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, oracle(image, preprocess), atol=1e-6, rtol=0)


def test_the_reports_pipeline_on_a_camera_sized_image() -> None:
    recipe = load_recipe("paper-v3").preprocess
    preprocess = Preprocess(**recipe.model_dump())
    image = noise(600, 450)
    pipeline = transforms.Compose(
        [
            transforms.Grayscale(3),
            transforms.Resize((300, 300)),
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    found = preprocess(image)
    np.testing.assert_allclose(found, pipeline(image).numpy(), atol=1e-6, rtol=0)
    channels = found * np.array(IMAGENET_STD)[:, None, None] + np.array(IMAGENET_MEAN)[:, None, None]
    np.testing.assert_allclose(channels[0], channels[1], atol=1e-6)


def test_real_images(real_data: Path) -> None:
    files = sorted(real_data.rglob("*.jpg"))[:3]
    assert files, f"no jpg below {real_data}"
    preprocess = Preprocess(color_mode="rgb", resize_steps_px=(224,), resize_rule="crop")
    for file in files:
        with Image.open(file) as image:
            rgb = image.convert("RGB")
        np.testing.assert_allclose(preprocess(rgb), oracle(rgb, preprocess), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("color_mode", ["gray", "rgb"])
def test_every_pillow_mode_is_taken(mode: str, color_mode: str) -> None:
    preprocess = Preprocess(color_mode=color_mode, resize_steps_px=(20,))  # type: ignore[arg-type]
    image = noise(30, 25).convert(mode)
    converted = image.convert("L" if color_mode == "gray" else "RGB")
    np.testing.assert_array_equal(preprocess(image), preprocess(converted))


def test_first_step_is_what_the_cache_holds() -> None:
    for color_mode, mode in (("gray", "L"), ("rgb", "RGB")):
        preprocess = Preprocess(color_mode=color_mode, resize_steps_px=(40, 20))  # type: ignore[arg-type]
        first = preprocess.first_step(noise(50, 33))
        assert (first.mode, first.size) == (mode, (40, 40))
        np.testing.assert_array_equal(preprocess.first_step(first), first)
        np.testing.assert_array_equal(preprocess.to_input(preprocess.remaining_steps(first)), preprocess(noise(50, 33)))


def test_json_round_trip_and_refusals() -> None:
    preprocess = Preprocess(color_mode="gray", resize_steps_px=(300, 224), mean=(0.1, 0.2, 0.3))
    assert Preprocess.model_validate_json(preprocess.model_dump_json()) == preprocess
    assert preprocess.input_size_px == 224
    for wrong in ({"std": (0.0, 1, 1)}, {"resize_steps_px": ()}, {"resize_steps_px": (8,)}, {"size": 3}):
        with pytest.raises(ValidationError):
            Preprocess(**wrong)
