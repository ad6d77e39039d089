"""Corruptions: deterministic, stronger with severity, of the kind that they say, on pictures of any shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.corruptions import CORRUPTIONS, SEVERITIES, Picture, _convolve, _reframe, corrupt
from lentigo.data.preprocess import Preprocess
from lentigo.data.synthetic import draw_lesion

KINDS = tuple(CORRUPTIONS)


@pytest.fixture(scope="module")
def lesion() -> Picture:
    """One drawing of 96 px."""
    return draw_lesion(CLASS_CODES[2], lesion_seed=3, size_px=96)


def change(before: Picture, after: Picture) -> float:
    """Root mean square difference in levels of 255."""
    return float(np.sqrt(np.mean((before.astype(float) - after) ** 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_same_pixels_and_the_input_is_left_alone(kind: str, lesion: Picture) -> None:
    before = lesion.copy()
    first, again = (corrupt(lesion, kind, 3, image_id="a") for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(lesion, before)
    assert (first.shape, first.dtype) == (lesion.shape, np.uint8)
    assert not np.array_equal(first, lesion)


@pytest.mark.parametrize("kind", KINDS)
def test_a_higher_severity_changes_more(kind: str, lesion: Picture) -> None:
    for image_id in ("a", "b", "c"):
        changes = [change(lesion, corrupt(lesion, kind, severity, image_id=image_id)) for severity in SEVERITIES]
        assert changes == sorted(changes)
        assert changes[0] < 0.7 * changes[-1]


RANDOM_KINDS = sorted(set(KINDS) - {"defocus", "jpeg", "brighter", "darker", "low_contrast"})


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_images_and_seeds_are_disturbed_differently(kind: str, lesion: Picture) -> None:
    by_image = {corrupt(lesion, kind, 4, image_id=name).tobytes() for name in "abcdefgh"}
    by_seed = {corrupt(lesion, kind, 4, image_id="a", seed=seed).tobytes() for seed in range(8)}
    assert len(by_image) > 1
    assert len(by_seed) > 1


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(SEVERITIES), st.integers(8, 40), st.integers(8, 40), st.integers(0, 255))
def test_any_shape_and_flat_colours_survive(kind: str, severity: int, height: int, width: int, level: int) -> None:
    picture = np.full((height, width, 3), level, np.uint8)
    found = corrupt(picture, kind, severity, image_id="x")
    assert (found.shape, found.dtype) == (picture.shape, np.uint8)
    if kind in ("defocus", "motion", "low_contrast", "rotation", "zoom", "shift"):
        np.testing.assert_allclose(found, picture, atol=1)


@pytest.mark.parametrize("mode", ["gray", "rgb"])
@pytest.mark.parametrize("kind", KINDS)
def test_gray_networks_see_them_too(kind: str, mode: str, lesion: Picture) -> None:
    preprocess = Preprocess(color_mode=mode, resize_steps_px=(48,))  # type: ignore[arg-type]
    clean, corrupted = (
        preprocess(Image.fromarray(picture)) for picture in (lesion, corrupt(lesion, kind, 5, image_id="a"))
    )
    assert np.abs(clean - corrupted).max() > 0.05


def test_brightness_contrast_and_colour_go_the_way_they_say(lesion: Picture) -> None:
    mean = lesion.mean()
    assert corrupt(lesion, "brighter", 3, image_id="a").mean() > mean + 5
    assert corrupt(lesion, "darker", 3, image_id="a").mean() == pytest.approx(0.66 * mean, abs=0.5)
    hazy = corrupt(lesion, "low_contrast", 5, image_id="a")
    np.testing.assert_allclose(hazy.mean(axis=(0, 1)), lesion.mean(axis=(0, 1)), atol=0.5)
    np.testing.assert_allclose(hazy.std(axis=(0, 1)), 0.4 * lesion.std(axis=(0, 1)), rtol=0.05)
    gray = np.full((16, 16, 3), 120, np.uint8)
    cast = corrupt(gray, "colour_cast", 5, image_id="a")[0, 0].astype(float)
    assert np.ptp(cast) > 15
    assert np.prod(cast / 120.0) == pytest.approx(1.0, abs=0.03)
    tones = {int(corrupt(gray, "gamma", 5, image_id=name)[0, 0, 0] > 120) for name in "abcdefgh"}
    assert tones == {0, 1}


def test_dark_corners_leave_the_centre(lesion: Picture) -> None:
    found = corrupt(lesion, "dark_corners", 5, image_id="a")
    assert found[0, 0].max() < 15
    np.testing.assert_array_equal(found[40:56, 40:56], lesion[40:56, 40:56])


def test_noise_has_the_strength_it_says() -> None:
    flat = np.full((100, 100, 3), 128, np.uint8)
    assert corrupt(flat, "gaussian_noise", 3, image_id="a").std() == pytest.approx(13.0, rel=0.03)
    expected = 255.0 * np.sqrt(128 / 255 / 170.0)
    assert corrupt(flat, "shot_noise", 3, image_id="a").std() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_convolution_is_scipys(size: int, lesion: Picture) -> None:
    kernel = np.random.default_rng(size).random((size, size))
    small = lesion[:31, :40]
    expected = np.stack(
        [ndimage.convolve(small[:, :, band].astype(float), kernel / kernel.sum(), mode="reflect") for band in range(3)],
        axis=2,
    )
    np.testing.assert_allclose(_convolve(small, kernel), expected, atol=0.501)


def test_reframing_moves_turns_and_enlarges() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:14, 20:24] = 255
    np.testing.assert_array_equal(_reframe(picture), picture)
    np.testing.assert_array_equal(_reframe(picture, shift=(0.1, 0.25))[20:24, 26:30], picture[10:14, 20:24])
    np.testing.assert_allclose(_reframe(picture, turn_degrees=180.0), picture[::-1, ::-1], atol=1)
    enlarged = _reframe(picture, scale=2.0)
    assert enlarged[2:6, 12:16].min() > 200, "the square spans 10..14 to 18..22 about the centre (20, 30)"
    bright = np.argwhere(_reframe(picture, turn_degrees=90.0)[:, :, 0] > 200)
    assert np.hypot(*(bright.mean(axis=0) - (19.5, 29.5))) == pytest.approx(np.hypot(8, 8), abs=1.0)


def test_lengths_follow_the_size() -> None:
    """A picture of twice the size is blurred over twice as many pixels."""
    small = draw_lesion(CLASS_CODES[2], lesion_seed=3, size_px=100)
    large = np.asarray(Image.fromarray(small).resize((200, 200), Image.Resampling.BICUBIC))
    for kind in ("defocus", "motion", "zoom", "shift", "dark_corners"):
        found = Image.fromarray(corrupt(large, kind, 5, image_id="a")).resize((100, 100), Image.Resampling.BOX)
        assert change(np.asarray(found), corrupt(small, kind, 5, image_id="a")) < 3.0, kind


@pytest.mark.parametrize(("kind", "severity"), [("fog", 1), ("hair", 0), ("hair", 6)])
def test_unknown_kinds_and_severities_are_refused(kind: str, severity: int, lesion: Picture) -> None:
    with pytest.raises(ConfigError, match="expected a"):
        corrupt(lesion, kind, severity, image_id="a")


@pytest.mark.parametrize(
    "picture",
    [np.zeros((20, 20), np.uint8), np.zeros((20, 20, 3), np.float32), np.zeros((20, 4, 3), np.uint8)],
)
def test_other_arrays_are_refused(picture: Picture) -> None:
    with pytest.raises(DataError, match="expected a picture"):
        corrupt(picture, "hair", 1, image_id="a")
