"""Camera of synthetic lesions: skin, viewpoint, light and everything that gets in the way. Nothing here knows
the class.

A drawn anatomy (`synthetic_canvas.Canvas`) is laid on skin, turned, scaled and flipped, turned into colour by
Beer-Lambert absorption, and then disturbed as dermoscopic photographs are: uneven light, dark corners, colour
cast, blur, hairs, rulers, gel bubbles, ink marks, reflections and sensor noise. Skin belongs to the lesion
(same in all views); the disturbances belong to the view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from lentigo.data.synthetic_canvas import Canvas, Cells, Plane, Point, ramp, smooth_noise

# Optical density per unit in R, G, B: melanin absorbs towards blue, blood most in green.
MELANIN_ABSORPTION = (0.50, 0.98, 1.42)
BLOOD_ABSORPTION = (0.16, 1.10, 0.82)
BLOODLESS_SKIN = (243.0, 219.0, 207.0)
SLATE_BLUE = (92.0, 106.0, 138.0)
PALE_FIBROUS = (240.0, 220.0, 218.0)
INK_COLOURS = ((70.0, 50.0, 150.0), (40.0, 70.0, 160.0), (35.0, 40.0, 60.0))
RULER_COLOUR = (30.0, 26.0, 26.0)
BUBBLE_COLOUR = (255.0, 250.0, 248.0)
NOISE_HEADROOM = 8  # grey levels kept free at both ends, so that adding noise cannot wrap around
DENSITY_RANGE = 3.2  # densities are stored in 8 bits while they are turned; more than this is black anyway


@dataclass(frozen=True)
class Skin:
    """The patient's skin around one lesion: optical densities and texture amplitudes, whatever the class."""

    melanin: float
    blood: float
    furrow_width: float
    furrow_depth: float
    mottling: float
    redness_mottling: float
    freckles: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Skin:
        """Light skins are common and dark ones present: melanin density from 0.02 to 1.0."""
        return cls(
            melanin=0.02 + float(rng.beta(1.0, 4.0)),
            blood=float(rng.uniform(0.04, 0.34)),
            furrow_width=float(rng.uniform(0.035, 0.07)),
            furrow_depth=float(rng.uniform(0.0, 0.045)),
            mottling=float(rng.uniform(0.005, 0.03)),
            redness_mottling=float(rng.uniform(0.01, 0.05)),
            freckles=float(rng.uniform(0.1, 0.5)) if rng.random() < 0.2 else 0.0,
        )


def _turned_planes(canvas: Canvas, rng: np.random.Generator, size_px: int) -> tuple[Plane, Plane, Plane, Plane]:
    """Melanin, blood, blue and pale, (size_px, size_px) each, from a random side, distance and offset."""
    angle, scale = rng.uniform(0.0, 2.0 * np.pi), np.exp(rng.uniform(-0.16, 0.16))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    shift_x, shift_y = rng.uniform(-0.16, 0.16, 2)
    to_pixel = 0.5 * (canvas.side_px - 1) / canvas.half_width / scale
    centre = 0.5 * canvas.side_px
    xx, xy = flip * np.cos(angle) * to_pixel, flip * np.sin(angle) * to_pixel
    yx, yy = -np.sin(angle) * to_pixel, np.cos(angle) * to_pixel
    step, x_zero, y_zero = 2.0 / size_px, -1.0 - shift_x, -1.0 - shift_y
    affine = (
        xx * step, xy * step, xx * x_zero + xy * y_zero + centre,
        yx * step, yy * step, yx * x_zero + yy * y_zero + centre,
    )  # fmt: skip
    sheet = np.empty((canvas.side_px, canvas.side_px, 4), np.uint8)
    densities = 255.0 / DENSITY_RANGE
    for band, (plane, gain) in enumerate(
        ((canvas.melanin, densities), (canvas.blood, densities), (canvas.blue, 255.0), (canvas.pale, 255.0))
    ):
        sheet[:, :, band] = np.clip(plane * np.float32(gain), 0.0, 255.0)
    # CMYK is pillow's only four-band mode that turns every band alike (RGBA premultiplies by the last one).
    turned = Image.frombytes("CMYK", (canvas.side_px, canvas.side_px), sheet.tobytes()).transform(
        (size_px, size_px), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    )
    melanin, blood, blue, pale = (np.asarray(band, np.float32) for band in turned.split())
    back = np.float32(1.0 / densities)
    return melanin * back, blood * back, blue * np.float32(1.0 / 255.0), pale * np.float32(1.0 / 255.0)


def _add_skin(skin: Skin, rng: np.random.Generator, x: Plane, y: Plane, melanin: Plane, blood: Plane) -> None:
    """Add the skin's own pigment, blood, furrows and freckles to the lesion's densities, in place."""
    size_px = melanin.shape[0]
    bend = smooth_noise(rng, size_px, 9) * np.float32(0.05)
    furrows = Cells(x + bend, 0.55 * y - bend, skin.furrow_width, rng.uniform(0.0, np.pi), (0.0, rng.uniform(0, 512)))
    melanin += np.float32(skin.melanin) + np.float32(skin.mottling) * smooth_noise(rng, size_px, 24)
    melanin += np.float32(skin.furrow_depth) * ramp(furrows.wall, 0.4, 0.0)
    if skin.freckles:
        melanin += np.float32(skin.freckles) * ramp(smooth_noise(rng, size_px, 18), 0.3, 2.2)
    blood += np.float32(skin.blood) + np.float32(skin.redness_mottling) * smooth_noise(rng, size_px, 9)
    np.maximum(melanin, 0.0, out=melanin)
    np.maximum(blood, 0.0, out=blood)


def _light(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    """Brightness (n, n): exposure, gradient, fall-off and, in one view of eight, the tube's black rim."""
    slope_x, slope_y = rng.uniform(-0.10, 0.10, 2)
    square = x * x + y * y
    light = np.float32(rng.uniform(0.88, 1.07)) + np.float32(slope_x) * x + np.float32(slope_y) * y
    light -= np.float32(rng.uniform(0.0, 0.12)) * square
    if rng.random() < 0.125:
        light *= ramp(square, rng.uniform(1.05, 1.5), rng.uniform(0.9, 1.0)) * 0.96 + 0.04
    return light


def _curve(start: Point, bend: Point, end: Point) -> list[Point]:
    """Twelve points of a quadratic Bezier curve."""
    return [
        (
            (1 - t) ** 2 * start[0] + 2 * t * (1 - t) * bend[0] + t * t * end[0],
            (1 - t) ** 2 * start[1] + 2 * t * (1 - t) * bend[1] + t * t * end[1],
        )
        for t in np.linspace(0.0, 1.0, 12).tolist()
    ]


def draw_hairs(pen: ImageDraw.ImageDraw, rng: np.random.Generator, side_px: int) -> None:
    """A few to many curved hairs of one thickness."""
    thickness_px = max(1, round(side_px / 600.0 * rng.uniform(1.6, 4.2)))
    for _ in range(int(1 + rng.gamma(1.3, 4.0))):
        (x, y), angle = rng.uniform(-0.1, 1.1, 2) * side_px, rng.uniform(0.0, 2.0 * np.pi)
        length, sag = rng.uniform(0.15, 0.9) * side_px, rng.normal(0.0, 0.12) * side_px
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        middle = ((x + end[0]) / 2 - sag * np.sin(angle), (y + end[1]) / 2 + sag * np.cos(angle))
        pen.line(_curve((x, y), middle, end), fill=int(rng.integers(130, 235)), width=thickness_px, joint="curve")


def draw_ruler(pen: ImageDraw.ImageDraw, rng: np.random.Generator, side_px: int) -> None:
    """Millimetre ticks along one edge."""
    along_x, at_end = rng.random() < 0.5, rng.random() < 0.5
    spacing = rng.uniform(0.045, 0.075) * side_px
    first, base = rng.uniform(0.0, 0.3) * side_px, side_px if at_end else 0
    for tick in range(int(rng.integers(6, 16))):
        reach = (0.075 if tick % 5 == 0 else 0.045) * side_px * (-1 if at_end else 1)
        at = first + tick * spacing
        ends = [(at, base), (at, base + reach)] if along_x else [(base, at), (base + reach, at)]
        pen.line(ends, fill=230, width=max(1, side_px // 150))


def draw_bubbles(pen: ImageDraw.ImageDraw, rng: np.random.Generator, side_px: int) -> None:
    """Gel bubbles: a thin bright ring with a brighter highlight on one side."""
    light_angle = rng.uniform(0.0, 360.0)
    for _ in range(int(rng.integers(1, 7))):
        (x, y), radius = rng.uniform(0.0, 1.0, 2) * side_px, rng.uniform(0.01, 0.07) * side_px
        box = (x - radius, y - radius, x + radius, y + radius)
        width = max(1, side_px // 220)
        pen.ellipse(box, outline=70, width=width)
        pen.arc(box, light_angle, light_angle + rng.uniform(50.0, 110.0), fill=190, width=2 * width)


def _reflections(pen: ImageDraw.ImageDraw, rng: np.random.Generator, side_px: int) -> None:
    """Specular glints: a loose group of small bright spots."""
    centre = rng.uniform(0.1, 0.9, 2)
    for x, y in (centre + rng.normal(0.0, 0.07, (int(rng.integers(3, 16)), 2))) * side_px:
        wide, high = rng.uniform(0.002, 0.011, 2) * side_px
        pen.ellipse((x - wide, y - high, x + wide, y + high), fill=int(rng.integers(110, 230)))


def draw_ink(pen: ImageDraw.ImageDraw, rng: np.random.Generator, side_px: int) -> None:
    """A stroke of the surgeon's pen near a corner."""
    x, y = (rng.integers(0, 2, 2) * 0.86 + rng.uniform(0.0, 0.14, 2)) * side_px
    sway = rng.normal(0.0, 0.14, 4) * side_px
    points = _curve((x - sway[0], y - sway[1]), (x, y), (x + sway[2], y + sway[3]))
    pen.line(points, fill=int(rng.integers(90, 190)), width=round(side_px * rng.uniform(0.02, 0.05)), joint="curve")


def _obstacles(rgb: list[Plane], rng: np.random.Generator) -> list[Plane]:
    """Hairs, ruler, ink, bubbles and reflections over the colour planes, each in its share of the views."""
    size_px = rgb[0].shape[0]
    hair_colour = ((38.0, 28.0, 26.0), (96.0, 70.0, 52.0), (160.0, 140.0, 118.0))[int(rng.choice(3, p=[0.6, 0.3, 0.1]))]
    for share, draw, colour in (
        (0.06, draw_ink, INK_COLOURS[int(rng.integers(len(INK_COLOURS)))]),
        (0.33, draw_hairs, hair_colour),
        (0.10, draw_ruler, RULER_COLOUR),
        (0.10, draw_bubbles, BUBBLE_COLOUR),
        (0.10, _reflections, (255.0, 252.0, 252.0)),
    ):
        if rng.random() >= share:
            continue
        sheet = Image.new("L", (2 * size_px, 2 * size_px))
        draw(ImageDraw.Draw(sheet), rng, 2 * size_px)
        opacity = np.asarray(sheet.reduce(2), np.float32) * np.float32(1.0 / 255.0)
        rgb = [plane + opacity * (np.float32(level) - plane) for plane, level in zip(rgb, colour, strict=True)]
    return rgb


def photograph(canvas: Canvas, skin: Skin, rng: np.random.Generator, size_px: int) -> NDArray[np.uint8]:
    """One view of a drawn lesion: (size_px, size_px, 3) uint8 RGB; the view's randomness is all in `rng`."""
    axis = np.linspace(-1.0, 1.0, size_px, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    melanin, blood, blue, pale = _turned_planes(canvas, rng, size_px)
    _add_skin(skin, rng, x, y, melanin, blood)
    light = _light(rng, x, y)
    cast = np.exp(rng.normal((0.0, -0.02, 0.0), (0.03, 0.03, 0.09)))  # pink to orange, hardly ever green
    rgb: list[Plane] = []
    for band in range(3):
        density = melanin * np.float32(-MELANIN_ABSORPTION[band]) + blood * np.float32(-BLOOD_ABSORPTION[band])
        colour = np.exp(density) * np.float32(BLOODLESS_SKIN[band])
        colour += blue * (np.float32(SLATE_BLUE[band] * np.exp(-0.5 * skin.melanin)) - colour)
        # Fibrosis and keratin lie in the same skin: their white is tinted by it.
        colour += pale * (
            np.float32(PALE_FIBROUS[band] * np.exp(-0.45 * skin.melanin * MELANIN_ABSORPTION[band])) - colour
        )
        rgb.append(colour * light * np.float32(cast[band]))
    rgb = _obstacles(rgb, rng)
    picture = np.empty((size_px, size_px, 3), np.uint8)
    for band in range(3):
        picture[:, :, band] = np.clip(rgb[band], NOISE_HEADROOM, 255.0 - NOISE_HEADROOM)
    blur_px = float(rng.uniform(0.0, 1.3)) * size_px / 300.0
    if blur_px > 0.35:
        picture = np.asarray(Image.fromarray(picture).filter(ImageFilter.BoxBlur(blur_px)))
    return add_sensor_noise(picture, rng)


def add_sensor_noise(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add uniform noise of +-2, 4 or 8 grey levels per channel (Gaussian noise takes ten times as long)."""
    raw = np.frombuffer(rng.bytes(picture.size), np.int8).reshape(picture.shape)
    noise = raw >> np.int8(rng.choice([4, 5, 6], p=[0.15, 0.4, 0.45]))
    return picture + noise.view(np.uint8)
