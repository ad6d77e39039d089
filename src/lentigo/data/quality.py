"""Is a photograph fit to be judged? Blur, exposure, size, a visible lesion, the colours and texture of skin.

Numpy and pillow only, about 4 ms an image: the gate runs before any network, in every tier. All checks but the size
look at the picture squashed to 128 x 128 pixels, so that the megapixels of the camera do not matter, and all but blur
and texture at its inscribed disc, so that the dark corners of a dermatoscope do not matter.

Every limit was measured, not chosen by taste: `benchmarks/quality_gate.py` prints how often each check fires on
HAM10000's training images (wanted: under 2%) and on images that are spoilt on purpose.

The gate knows pictures, not skin: an unflagged image may still be useless, and a flagged one be fine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]

WORKING_SIZE_PX = 128
DISC_RADIUS = 0.45
"""Of the side. Circular fields of view of dermatoscopes fill the height of the picture."""
DARK_LEVEL, BRIGHT_LEVEL = 16, 250
"""Luma at and below which shadows, at and above which lights hold no detail; JPEG moves clipped pixels a little."""

_LUMA = (0.299, 0.587, 0.114)
_REBLUR_PX = 5
_CELLS = 16
_OFFSET = 8.0
"""Added to both channels of a colour ratio: two dark, noisy numbers have no meaningful ratio."""
_GRAY_TOLERANCE = 3
"""Levels by which the channels of a gray picture may differ after JPEG."""


class QualityCheck(BaseModel):
    """One property of a picture against its limits.

    `value` is None where it cannot be known (colours of a gray picture), and then not flagged. `text` says in plain
    words what is wrong, and is empty where nothing is.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    value: float | None
    low: float | None
    high: float | None
    text: str = ""

    @property
    def flagged(self) -> bool:
        """Whether the value lies outside its limits."""
        return bool(self.text)


class Quality(BaseModel):
    """All checks of one picture, in a fixed order."""

    model_config = ConfigDict(frozen=True)

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


class _Limits(BaseModel):
    """What is normal, and what to say below and above it."""

    model_config = ConfigDict(frozen=True)

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
    small = image.convert("RGB").resize((WORKING_SIZE_PX, WORKING_SIZE_PX), Image.Resampling.BILINEAR)
    pixels = np.asarray(small, dtype=np.float64)
    luma: Floats = pixels @ np.array(_LUMA)
    inside = _disc(WORKING_SIZE_PX)
    colored = np.ptp(pixels, axis=2).max() > _GRAY_TOLERANCE
    values: dict[str, float | None] = {
        "size_px": float(min(image.size)),
        "blur": blur_effect(luma),
        "brightness": float(luma[inside].mean()),
        "dark_share": float((luma[inside] <= DARK_LEVEL).mean()),
        "bright_share": float((luma[inside] >= BRIGHT_LEVEL).mean()),
        "contrast": relative_contrast(pixels),
        "redness": float(np.exp(np.percentile(_log_ratio(pixels[inside], 0, 1), 5))) if colored else None,
        "green_to_blue": float(np.exp(_log_ratio(pixels[inside], 1, 2).mean())) if colored else None,
        "texture": float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean()),
    }
    return Quality(checks=tuple(_check(name, values[name], limits) for name, limits in LIMITS.items()))


def blur_effect(luma: Floats) -> float:
    """How little of the differences between neighbours another blur takes away: 0 sharp .. 1 blurred; (H, W) luma.

    The worse of both directions, since a moved camera blurs one. Crété-Roffet et al., SPIE 6492, 2007. It is a ratio,
    so that a pale lesion is not called blurred, as the variance of a Laplacian would. 1 for a constant picture.
    """
    return max(_blur_along_rows(luma), _blur_along_rows(luma.T))


def _blur_along_rows(luma: Floats) -> float:
    sums = np.cumsum(np.pad(luma, ((1, 0), (0, 0))), axis=0)
    reblurred = (sums[_REBLUR_PX:] - sums[:-_REBLUR_PX]) / _REBLUR_PX
    margin = _REBLUR_PX // 2
    sharp = np.abs(np.diff(luma, axis=0))[margin : margin + len(reblurred) - 1]
    lost = np.maximum(0.0, sharp - np.abs(np.diff(reblurred, axis=0)))
    total = sharp.sum()
    return float(1.0 - lost.sum() / total) if total > 0 else 1.0


def relative_contrast(pixels: Floats) -> float:
    """Root mean square distance of local colours from their mean, over the mean level; pixels (S, S, 3), 0..255.

    Local colours are means of 1/16 of the side, in the disc: hairs and noise average out, lesions do not. 0 for a
    constant picture.
    """
    side = len(pixels) // _CELLS
    cells = pixels.reshape(_CELLS, side, _CELLS, side, 3).mean(axis=(1, 3))[_disc(_CELLS)]
    mean = cells.mean(axis=0)
    return float(np.sqrt(((cells - mean) ** 2).sum(axis=1).mean()) / max(mean.mean(), 1.0))


def _log_ratio(pixels: Floats, upper: int, lower: int) -> Floats:
    """Natural logarithm of one channel over another, per pixel; pixels (..., 3)."""
    ratio: Floats = np.log((pixels[..., upper] + _OFFSET) / (pixels[..., lower] + _OFFSET))
    return ratio


def _disc(side: int) -> NDArray[np.bool_]:
    """(side, side): whether the centre of each cell lies inside the disc."""
    place = (np.arange(side) + 0.5) / side - 0.5
    inside: NDArray[np.bool_] = np.hypot(place[:, None], place[None, :]) <= DISC_RADIUS
    return inside


def _check(name: str, value: float | None, limits: _Limits) -> QualityCheck:
    text = ""
    if value is not None and limits.low is not None and value < limits.low:
        text = limits.too_low
    elif value is not None and limits.high is not None and value > limits.high:
        text = limits.too_high
    return QualityCheck(name=name, value=value, low=limits.low, high=limits.high, text=text)
