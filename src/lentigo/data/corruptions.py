"""Corruptions that dermoscopic photographs suffer, each at five severities: what robustness is measured on.

After the idea of ImageNet-C (Hendrycks & Dietterich, ICLR 2019), with the artefacts of dermoscopy: hair, rulers,
ink and gel bubbles are drawn as on the synthetic lesions (`synthetic_camera`). The steps were chosen by eye,
on drawn lesions and photographs: severity 1 is barely visible; at 5 the lesion's features are still to be recognised.

They act on the decoded photograph, before `Preprocess`, as the camera would; a gray network sees them after its
own conversion to gray. Lengths follow the picture's size, so that a kind means the same at 224 and at 600 px;
noise and JPEG blocks are those of the file's pixels, and shrink where `Preprocess` shrinks the picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.seeding import derive_seed
from lentigo.data.synthetic_camera import (
    BUBBLE_COLOUR,
    INK_COLOURS,
    RULER_COLOUR,
    draw_bubbles,
    draw_hairs,
    draw_ink,
    draw_ruler,
)
from lentigo.data.synthetic_canvas import ramp

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""
Colours = NDArray[np.float32]
"""(H, W, 3) float32, 0..255 and perhaps beyond."""
Corruption = Callable[[Picture, int, np.random.Generator], Picture]
"""A picture, a level 0..4 (severity - 1) and the image's own random numbers -> the corrupted picture."""
Pen = Callable[[ImageDraw.ImageDraw, np.random.Generator, int], None]

SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST_SIDE_PX = 8
HAIR_COLOURS = ((38.0, 28.0, 26.0), (96.0, 70.0, 52.0))
_REFERENCE_PX = 224
"""Lengths in pixels below are those of a picture of this side (geometric mean of its sides)."""


def corrupt(picture: Picture, kind: str, severity: int, *, image_id: str, seed: int = 0) -> Picture:
    """A corrupted copy of `picture` (H, W, 3) uint8, of the same shape.

    The random part (where the hairs lie, which way it shifts) follows from seed, kind and image id, and not from
    severity: a higher severity is the same disturbance, stronger. The same arguments give the same pixels.

    Raises:
        ConfigError: for an unknown kind or a severity outside 1..5.
        DataError: where the picture is no (H, W, 3) uint8 array with sides of 8 px or more.
    """
    if kind not in CORRUPTIONS:
        raise ConfigError(f"expected a corruption of {', '.join(CORRUPTIONS)}; found {kind!r}", "Pass one of these.")
    if severity not in SEVERITIES:
        raise ConfigError(f"expected a severity of 1 to 5; found {severity}", "Pass one of these.")
    wrong = picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3
    if wrong or min(picture.shape[:2]) < SMALLEST_SIDE_PX:
        raise DataError(
            f"expected a picture (H, W, 3) of uint8, sides of {SMALLEST_SIDE_PX} px or more; "
            f"found {picture.shape} of {picture.dtype}",
            "Decode it with lentigo.data.images.load_image.",
        )
    rng = np.random.default_rng(derive_seed(seed, f"corruption {kind} of {image_id}"))
    return CORRUPTIONS[kind](picture, severity - 1, rng)


def _to_picture(colours: Colours) -> Picture:
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)


def _reference_px(picture: Picture) -> float:
    """How many pixels of this picture one pixel of the reference size is."""
    height, width = picture.shape[:2]
    return float(np.sqrt(height * width)) / _REFERENCE_PX


def _overlay(
    picture: Picture, rng: np.random.Generator, draw: Pen, colour: tuple[float, ...], times: int, opacity: float
) -> Picture:
    """Draw `times` times over the picture. Drawn on a square and stretched to the picture, as squashing undoes."""
    height, width = picture.shape[:2]
    side_px = max(height, width)
    sheet = Image.new("L", (2 * side_px, 2 * side_px))
    pen = ImageDraw.Draw(sheet)
    for _ in range(times):
        draw(pen, rng, 2 * side_px)
    small = sheet.reduce(2).resize((width, height), Image.Resampling.BILINEAR)
    share = np.asarray(small, np.float32)[:, :, None] * np.float32(opacity / 255.0)
    base = picture.astype(np.float32)
    return _to_picture(base + share * (np.asarray(colour, np.float32) - base))


def _hair(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    colour = HAIR_COLOURS[int(rng.integers(len(HAIR_COLOURS)))]
    return _overlay(picture, rng, draw_hairs, colour, (1, 2, 3, 4, 6)[level], (0.45, 0.7, 0.85, 0.95, 1.0)[level])


def _ruler_marks(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    return _overlay(picture, rng, draw_ruler, RULER_COLOUR, (1, 1, 1, 2, 3)[level], (0.35, 0.6, 1.0, 1.0, 1.0)[level])


def _ink_strokes(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    colour = INK_COLOURS[int(rng.integers(len(INK_COLOURS)))]
    return _overlay(picture, rng, draw_ink, colour, (1, 1, 2, 4, 6)[level], (0.25, 0.6, 0.8, 0.95, 1.0)[level])


def _gel_bubbles(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    return _overlay(
        picture, rng, draw_bubbles, BUBBLE_COLOUR, (1, 2, 3, 5, 8)[level], (0.5, 0.65, 0.8, 0.95, 1.0)[level]
    )


def _dark_corners(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """The dermoscope's round field: black beyond a circle; squared radii, where a corner lies at 2."""
    height, width = picture.shape[:2]
    edge, softness = (1.75, 1.5, 1.25, 1.0, 0.8)[level], rng.uniform(0.1, 0.35)
    centre_x, centre_y = rng.uniform(-0.08, 0.08, 2)
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :] - np.float32(centre_x)
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None] - np.float32(centre_y)
    darkest = np.float32((0.65, 0.35, 0.15, 0.05, 0.03)[level])
    light = darkest + (1 - darkest) * ramp(x * x + y * y, edge + softness, edge - softness)
    return _to_picture(picture * light[:, :, None])


def _convolve(picture: Picture, kernel: NDArray[np.float64]) -> Picture:
    """Picture and normalised kernel (K, K), K odd; the borders are mirrored."""
    reach = kernel.shape[0] // 2
    padded = np.pad(picture.astype(np.float64), ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    shape = (padded.shape[0] + 2 * reach, padded.shape[1] + 2 * reach)
    spectrum = np.fft.rfft2(padded, shape, axes=(0, 1)) * np.fft.rfft2(kernel / kernel.sum(), shape)[:, :, None]
    full = np.fft.irfft2(spectrum, shape, axes=(0, 1))
    height, width = picture.shape[:2]
    return _to_picture(full[2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width].astype(np.float32))


def _defocus(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """A lens out of focus spreads each point over a disc."""
    radius_px = (0.8, 1.3, 2.0, 2.8, 3.8)[level] * _reference_px(picture)
    reach = int(np.ceil(radius_px + 0.5))
    axis = np.arange(-reach, reach + 1)
    return _convolve(picture, np.clip(radius_px + 0.5 - np.hypot(axis[:, None], axis[None, :]), 0.0, 1.0))


def _motion(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """The hand moves along a straight line while the shutter is open."""
    half_px = 0.5 * (2.5, 4.0, 6.0, 8.5, 11.0)[level] * _reference_px(picture)
    angle = rng.uniform(0.0, np.pi)
    reach = int(np.ceil(half_px + 1.0))
    axis = np.arange(-reach, reach + 1)
    along = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
    across = axis[:, None] * np.cos(angle) - axis[None, :] * np.sin(angle)
    beyond = np.maximum(np.abs(along) - half_px, 0.0)
    return _convolve(picture, np.clip(1.0 - np.hypot(beyond, across), 0.0, 1.0))


def _gaussian_noise(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Read-out noise of the sensor: standard deviations in levels of 255."""
    return _to_picture(picture + (4.0, 8.0, 13.0, 19.0, 26.0)[level] * rng.standard_normal(picture.shape, np.float32))


def _shot_noise(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Few photons: Poisson counts, the given number at white."""
    photons = (1000.0, 400.0, 170.0, 90.0, 50.0)[level]
    return _to_picture((rng.poisson(picture * (photons / 255.0)) * (255.0 / photons)).astype(np.float32))


def _jpeg(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """One more compression, colours at half resolution as usual."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=(60, 35, 24, 17, 12)[level], subsampling="4:2:0")
    buffer.seek(0)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _brighter(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Overexposed: highlights clip."""
    return _to_picture(picture * np.float32((1.06, 1.12, 1.2, 1.3, 1.42)[level]))


def _darker(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    return _to_picture(picture * np.float32((0.9, 0.78, 0.66, 0.54, 0.42)[level]))


def _gamma(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Another tone curve, darker or paler midtones by the image's luck; black and white stay."""
    exponent = (1.1, 1.25, 1.45, 1.7, 2.0)[level] ** rng.choice([-1.0, 1.0])
    table = np.rint(255.0 * np.linspace(0.0, 1.0, 256) ** exponent).astype(np.uint8)
    toned: Picture = table.take(picture)
    return toned


def _low_contrast(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Haze: everything moves towards the mean colour."""
    mean = picture.mean(axis=(0, 1), dtype=np.float32)
    return _to_picture(mean + np.float32((0.88, 0.75, 0.62, 0.5, 0.4)[level]) * (picture - mean))


def _colour_cast(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """A wrong white balance: warm or cold most of all, green or magenta less; the gains multiply to 1."""
    turn = rng.uniform(0.0, 2.0 * np.pi)
    warm, green = np.cos(turn), 0.6 * np.sin(turn)
    direction = warm * np.array([1.0, 0.0, -1.0]) + green * np.array([-0.5, 1.0, -0.5])
    return _to_picture(picture * np.exp((0.03, 0.07, 0.11, 0.16, 0.22)[level] * direction).astype(np.float32))


def _reframe(
    picture: Picture, *, turn_degrees: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> Picture:
    """Turned, enlarged and moved by shares (x, y) of the sides; what comes into view is a mirror image.

    Mirrored and not black, because a black rim would be another corruption.
    """
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((height, height), (width, width), (0, 0)), mode="symmetric")
    cosine, sine = np.cos(np.radians(turn_degrees)) / scale, np.sin(np.radians(turn_degrees)) / scale
    from_x, from_y = 0.5 * width + shift[0] * width, 0.5 * height + shift[1] * height
    to_x, to_y = 1.5 * width, 1.5 * height  # the picture's centre in the padded frame
    affine = (
        cosine, sine, to_x - cosine * from_x - sine * from_y,
        -sine, cosine, to_y + sine * from_x - cosine * from_y,
    )  # fmt: skip
    moved = Image.fromarray(padded).transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    return np.asarray(moved)


def _rotation(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    return _reframe(picture, turn_degrees=(5.0, 10.0, 20.0, 30.0, 45.0)[level] * rng.choice([-1.0, 1.0]))


def _zoom(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    """Nearer or farther, by the image's luck."""
    return _reframe(picture, scale=(1.06, 1.13, 1.22, 1.34, 1.5)[level] ** rng.choice([-1.0, 1.0]))


def _shift(picture: Picture, level: int, rng: np.random.Generator) -> Picture:
    angle, share = rng.uniform(0.0, 2.0 * np.pi), (0.03, 0.06, 0.1, 0.15, 0.2)[level]
    return _reframe(picture, shift=(share * float(np.cos(angle)), share * float(np.sin(angle))))


CORRUPTIONS: dict[str, Corruption] = {
    "hair": _hair,
    "ruler": _ruler_marks,
    "ink": _ink_strokes,
    "dark_corners": _dark_corners,
    "bubbles": _gel_bubbles,
    "defocus": _defocus,
    "motion": _motion,
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "jpeg": _jpeg,
    "brighter": _brighter,
    "darker": _darker,
    "gamma": _gamma,
    "low_contrast": _low_contrast,
    "colour_cast": _colour_cast,
    "rotation": _rotation,
    "zoom": _zoom,
    "shift": _shift,
}
"""Kind -> function, in the order in which tables and plots show them."""
