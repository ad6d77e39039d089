"""Is a photograph fit to be judged? Blur, exposure, size, a visible lesion, the colours and texture of skin.

Numpy and pillow only, 1.5 ms for a picture of 600 x 450 pixels and mostly for its resize: the gate runs before any
network, in every tier. All checks but the size look at the picture squashed to 128 x 128 pixels, so that the megapixels
of the camera do not matter, and all but blur and texture at its inscribed disc, so that the dark corners of a
dermatoscope do not matter.

Every limit was measured, not chosen by taste: `benchmarks/quality_gate.py` prints how often each check fires on
HAM10000's training images (wanted: under 2%) and on images that are spoilt on purpose.

The gate knows pictures, not skin: an unflagged image may still be useless, and a flagged one be fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating]

WORKING_SIZE_PX = 128
DISC_RADIUS = 0.45
"""Of the side. Circular fields of view of dermatoscopes fill the height of the picture."""
DARK_LEVEL, BRIGHT_LEVEL = 16, 250
"""Luma at and below which shadows, at and above which lights hold no detail; JPEG moves clipped pixels a little."""

_LUMA, _LUMA_SCALE = np.array((299, 587, 114), dtype=np.float32), 1000
"""ITU-R 601 in whole numbers: gray of a level has just that luma, which 0.299 and so on miss by rounding."""
_REBLUR_PX = 5
_CELLS = 16
_OFFSET = 8.0
"""Added to both channels of a colour ratio: two dark, noisy numbers have no meaningful ratio."""
_LOW_SHARE = 0.05
_GRAY_TOLERANCE = 3
"""Levels by which the channels of a gray picture may differ after JPEG."""


@dataclass(frozen=True, slots=True)
class QualityCheck:
    """One property of a picture against its limits.

    `value` is None where it cannot be known (colours of a gray picture), and then not flagged. `text` says in plain
    words what is wrong, and is empty where nothing is.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    text: str = ""

    @property
    def flagged(self) -> bool:
        """Whether the value lies outside its limits."""
        return bool(self.text)


@dataclass(frozen=True, slots=True)
class Quality:
    """All checks of one picture, in a fixed order."""

    checks: tuple[QualityCheck, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is flagged."""
        return not self.flags

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the flagged checks."""
        return tuple(check.name for check in self.checks if check.flagged)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is wrong, in plain words."""
        return tuple(check.text for check in self.checks if check.flagged)


@dataclass(frozen=True, slots=True)
class _Limits:
    """What is normal, and what to say below and above it."""

    low: float | None = None
    high: float | None = None
    too_low: str = ""
    too_high: str = ""


LIMITS: dict[str, _Limits] = {
    "size_px": _Limits(low=100, too_low="The picture has too few pixels to show the structures of a lesion."),
    "blur": _Limits(high=0.63, too_high="The picture is blurred."),
    "brightness": _Limits(low=80, high=215, too_low="The picture is too dark.", too_high="The picture is too bright."),
    "dark_share": _Limits(high=0.06, too_high="Large parts of the picture are black."),
    "bright_share": _Limits(high=0.03, too_high="Parts of the picture are washed out or reflect the light."),
    "contrast": _Limits(low=0.09, too_low="No lesion stands out from its surroundings."),
    "redness": _Limits(
        low=0.985,
        high=2.2,
        too_low="Parts of the picture are not of the colour of skin.",
        too_high="The picture is far too red.",
    ),
    "green_to_blue": _Limits(
        low=0.74, high=1.55, too_low="The colours have a blue cast.", too_high="The colours have a yellow cast."
    ),
    "texture": _Limits(high=13.5, too_high="The picture has more edges or noise than skin under a dermatoscope."),
}
"""Each check's normal range; the fields' meaning is that of the functions below."""


def check_quality(image: Image.Image) -> Quality:
    """Measure a decoded picture of any size and mode.

    - size_px: the shorter side;
    - blur: 0 sharp .. 1 blurred (`blur_effect`);
    - brightness: mean luma, 0..255;
    - dark_share, bright_share: share of clipped pixels, 0..1;
    - contrast: spread of colour over the picture, relative to its brightness (`relative_contrast`);
    - redness: red over green in the least red twentieth of the picture; skin is redder than green everywhere;
    - green_to_blue: geometric mean of green over blue;
    - texture: mean difference of neighbouring pixels' luma, levels.
    """
    small = image if image.mode == "RGB" else image.convert("RGB")
    small = small.resize((WORKING_SIZE_PX, WORKING_SIZE_PX), Image.Resampling.BILINEAR)
    # float32 takes half the time, and holds these whole numbers, their differences and their sums exactly.
    pixels = np.asarray(small, dtype=np.float32)
    red, green, blue = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    luma = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    inside = _places_in_disc(WORKING_SIZE_PX)
    reds, greens, blues, lumas = (values.ravel()[inside] for values in (red, green, blue, luma))
    colors = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    colored = colors.max() > _GRAY_TOLERANCE
    found: dict[str, float | None] = {
        "size_px": float(min(image.size)),
        "blur": blur_effect(luma),
        "brightness": _mean(lumas) / _LUMA_SCALE,
        "dark_share": float((lumas <= DARK_LEVEL * _LUMA_SCALE).mean()),
        "bright_share": float((lumas >= BRIGHT_LEVEL * _LUMA_SCALE).mean()),
        "contrast": relative_contrast(pixels),
        "redness": _low_ratio(reds, greens) if colored else None,
        "green_to_blue": float(np.exp(_mean(np.log(_ratio(greens, blues))))) if colored else None,
        "texture": sum(_mean(np.abs(np.diff(luma, axis=axis))) for axis in (0, 1)) / _LUMA_SCALE,
    }
    return Quality(checks=tuple(_check(name, found[name], limits) for name, limits in LIMITS.items()))


def blur_effect(luma: Floats) -> float:
    """How little of the differences between neighbours another blur takes away: 0 sharp .. 1 blurred; (H, W) luma.

    The worse of both directions, since a moved camera blurs one. Crété-Roffet et al., SPIE 6492, 2007. It is a ratio,
    so that a pale lesion is not called blurred, as the variance of a Laplacian would. 1 for a constant picture.
    """
    return max(_blur_along_rows(luma), _blur_along_rows(np.ascontiguousarray(luma.T)))


def _blur_along_rows(luma: Floats) -> float:
    """The blur is the mean of `_REBLUR_PX` rows: neighbouring means differ by a row that enters and one that leaves."""
    margin = _REBLUR_PX // 2
    sharp = _REBLUR_PX * np.abs(np.diff(luma[margin:-margin], axis=0))
    reblurred = np.abs(luma[_REBLUR_PX:] - luma[:-_REBLUR_PX])
    total = sharp.sum(dtype=np.float64)
    return float(1.0 - np.maximum(0.0, sharp - reblurred).sum(dtype=np.float64) / total) if total > 0 else 1.0


def relative_contrast(pixels: Floats) -> float:
    """Root mean square distance of local colours from their mean, over the mean level; pixels (S, S, 3), 0..255.

    Local colours are means of 1/16 of the side, in the disc: hairs and noise average out, lesions do not. 0 for a
    constant picture.
    """
    side = len(pixels) // _CELLS
    rows = pixels.reshape(_CELLS, side, -1).sum(axis=1)
    sums = rows.reshape(_CELLS**2, side, 3).sum(axis=1, dtype=np.float64)
    cells = sums[_places_in_disc(_CELLS)] / side**2
    mean = cells.mean(axis=0)
    return float(np.sqrt(((cells - mean) ** 2).sum(axis=1).mean()) / max(mean.mean(), 1.0))


def _ratio(upper: Floats, lower: Floats) -> Floats:
    return (upper + np.float32(_OFFSET)) / (lower + np.float32(_OFFSET))


def _low_ratio(upper: Floats, lower: Floats) -> float:
    """The lower `_LOW_SHARE` quantile of one channel over another, interpolated between logarithms; both (N,)."""
    place = _LOW_SHARE * (len(upper) - 1)
    below = int(place)
    low, high = np.partition(_ratio(upper, lower), (below, below + 1))[below : below + 2].astype(np.float64)
    return float(low * (high / low) ** (place - below))


def _mean(values: Floats) -> float:
    return float(values.mean(dtype=np.float64))


@lru_cache
def _places_in_disc(side: int) -> NDArray[np.intp]:
    """Which of the side * side cells, row by row, have their centre inside the disc."""
    place = (np.arange(side) + 0.5) / side - 0.5
    return np.flatnonzero(np.hypot(place[:, None], place[None, :]) <= DISC_RADIUS)


def _check(name: str, value: float | None, limits: _Limits) -> QualityCheck:
    text = ""
    if value is not None and limits.low is not None and value < limits.low:
        text = limits.too_low
    elif value is not None and limits.high is not None and value > limits.high:
        text = limits.too_high
    return QualityCheck(name=name, value=value, low=limits.low, high=limits.high, text=text)
