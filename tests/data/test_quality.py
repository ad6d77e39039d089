"""The quality gate: each flag on what it is for, and silence on what it is not for."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from lentigo.data.quality import LIMITS, blur_effect, check_quality, relative_contrast


def picture(size_px: int = 256, seed: int = 0) -> Image.Image:
    """A sharp brown disc on pink, textured skin."""
    rng = np.random.default_rng(seed)
    place = (np.arange(size_px) + 0.5) / size_px - 0.5
    inside = np.hypot(place[:, None], place[None, :]) < 0.25
    pixels = np.where(inside[..., None], (120.0, 80.0, 70.0), (200.0, 150.0, 140.0))
    pixels = pixels + rng.normal(scale=8.0, size=(size_px, size_px, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def scaled(image: Image.Image, *factors: float) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image, dtype=float) * factors, 0, 255).astype(np.uint8))


def test_a_good_picture_is_good() -> None:
    found = check_quality(picture())
    assert found.good
    assert (found.flags, found.texts) == ((), ())
    assert [check.name for check in found.checks] == list(LIMITS)
    assert all(check.value is not None for check in found.checks)


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("size_px", picture().resize((256, 80))),
        ("blur", picture().filter(ImageFilter.GaussianBlur(6))),
        ("brightness", scaled(picture(), 0.3)),
        ("brightness", Image.fromarray((190 + np.asarray(picture()) // 4).astype(np.uint8))),
        ("dark_share", Image.fromarray(np.where(np.arange(256)[:, None, None] < 90, 0, picture()).astype(np.uint8))),
        ("bright_share", scaled(picture(), 1.7)),
        ("contrast", picture().crop((0, 0, 60, 60)).resize((256, 256))),
        ("redness", Image.fromarray(np.asarray(picture())[..., ::-1].copy())),
        ("redness", scaled(picture(), 1.0, 0.4, 1.0)),
        ("green_to_blue", scaled(picture(), 1.0, 1.0, 0.5)),
        ("green_to_blue", scaled(picture(), 1.0, 0.7, 1.3)),
        ("texture", Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8))),
    ],
)
def test_each_flag_on_what_it_is_for(name: str, spoilt: Image.Image) -> None:
    found = check_quality(spoilt)
    assert name in found.flags
    assert all(text.endswith(".") for text in found.texts)


def test_gray_pictures_have_no_colours_to_check() -> None:
    for gray in (picture().convert("L"), picture().convert("L").convert("RGB")):
        values = {check.name: check.value for check in check_quality(gray).checks}
        assert values["redness"] is None
        assert values["green_to_blue"] is None
        assert check_quality(gray).good


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (200, 150, 140)])
def test_constant_pictures(color: tuple[int, int, int]) -> None:
    found = check_quality(Image.new("RGB", (300, 200), color))
    assert {"blur", "contrast"} <= set(found.flags)
    values = {check.name: check.value for check in found.checks}
    assert (values["blur"], values["contrast"], values["texture"]) == pytest.approx((1.0, 0.0, 0.0))


def test_the_dark_corners_of_a_dermatoscope_are_no_flaw() -> None:
    pixels = np.asarray(picture()).copy()
    place = (np.arange(256) + 0.5) / 256 - 0.5
    pixels[np.hypot(place[:, None], place[None, :]) > 0.5] = 0
    assert check_quality(Image.fromarray(pixels)).good


def test_the_camera_s_megapixels_do_not_matter() -> None:
    small, large = picture(256), picture(256).resize((1024, 1024), Image.Resampling.BICUBIC)
    for one, other in zip(check_quality(small).checks[1:], check_quality(large).checks[1:], strict=True):
        assert one.value == pytest.approx(other.value, rel=0.1, abs=0.005), one.name


def test_blur_effect_agrees_with_its_definition() -> None:
    """Loops over pixels, as the paper writes it."""
    luma = np.random.default_rng(3).uniform(0, 255, (17, 19))
    each = []
    for rows in (luma, luma.T):
        height, width = rows.shape
        blurred = {(y, x): rows[y - 2 : y + 3, x].mean() for y in range(2, height - 2) for x in range(width)}
        total = lost = 0.0
        for (y, x), value in blurred.items():
            if (y + 1, x) in blurred:
                sharp = abs(rows[y + 1, x] - rows[y, x])
                total += sharp
                lost += max(0.0, sharp - abs(blurred[y + 1, x] - value))
        each.append(1 - lost / total)
    assert blur_effect(luma) == pytest.approx(max(each), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 1.0), st.floats(0.01, 1.0))
def test_ranges_and_invariances(seed: int, factor: float, strength: float) -> None:
    rng = np.random.default_rng(seed)
    pixels = 20 + strength * rng.uniform(0, 200, (128, 128, 3))
    luma = pixels[..., 0]
    assert 0.0 <= blur_effect(luma) <= 1.0
    assert blur_effect(factor * luma) == pytest.approx(blur_effect(luma), abs=1e-6)
    assert relative_contrast(factor * pixels) == pytest.approx(relative_contrast(pixels), abs=1e-9)


def test_more_blur_never_looks_sharper() -> None:
    values = [
        blur_effect(np.asarray(picture().convert("L").filter(ImageFilter.GaussianBlur(s)), float)) for s in range(4)
    ]
    assert values == sorted(values)


def test_no_torch_is_needed() -> None:
    code = "import sys; sys.modules['torch'] = None; import lentigo.data.quality; print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


@pytest.mark.real_data
def test_each_flag_is_rare_on_real_training_images(real_data: Path) -> None:
    with (real_data / "ham10000.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "train" and row["primary"] == "1"]
    found = [check_quality(Image.open(real_data / row["file"])) for row in rows[::15]]
    for name in LIMITS:
        assert sum(name in one.flags for one in found) <= 0.02 * len(found), name
