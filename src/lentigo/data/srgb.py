"""A decoded picture of any mode -> upright 8-bit sRGB: EXIF turn, colour profile, 16 bits, transparency.

At most two copies of the picture exist at a time: a 100-megapixel one takes 400 MB.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from lentigo.core.errors import DataError

_EXIF_ORIENTATION = 0x0112
_STRIP_ROWS = 256
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none or it is broken."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole file to look for a chunk after the pixels
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF blocks raise anything; the pixels are still good
        return 1
    return value if value in _UPRIGHT else 1


def to_srgb(image: Image.Image, name: str) -> Image.Image:
    """The upright picture in mode RGB, without the file's EXIF and profile, which now no longer hold.

    `image` is loaded, and given up to save its memory.

    Raises:
        DataError: for pixels without an agreed white level, and modes that have no RGB.
    """
    profile = image.info.get("icc_profile")
    turn = orientation(image)
    if image.mode in ("F", "I"):
        raise DataError(
            f"{name} has 32-bit or signed pixels, for which no white level is agreed",
            "Save it with 8 or 16 bits a channel.",
        )
    if image.mode.startswith("I;16"):
        image = _to_8_bits(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        if image.mode != "RGBA":  # converting would copy
            image = image.convert("RGBA")
        image = _onto_white(image, profile)
    elif profile and image.mode in ("L", "CMYK"):
        image = _convert(apply_profile(image, profile), name)
    else:
        image = _convert(image, name)
        image = apply_profile(image, profile) if profile else image
    if turn > 1:
        image = image.transpose(_UPRIGHT[turn])
    image.info = {}
    return image


def apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Colours of an embedded ICC profile -> sRGB; unchanged where it is broken or of another mode."""
    try:
        transform = _srgb_transform(profile, image.mode)
        return image if transform is None else transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if ImageCms.getProfileDescription(source).lower().startswith("srgb"):
        return None  # the identity, but for rounding errors of one level
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, target, mode, "RGB", ImageCms.Intent.PERCEPTUAL)


def _onto_white(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGBA over white, colours through the profile first."""
    paper = Image.new("RGB", image.size, "white")
    for top in range(0, image.height, _STRIP_ROWS):
        strip = image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height)))
        colours = strip.convert("RGB")
        paper.paste(apply_profile(colours, profile) if profile else colours, (0, top), strip.getchannel("A"))
    return paper


def _convert(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB":
        return image
    try:
        return image.convert("RGB")
    except ValueError:
        raise DataError(
            f"{name} has the colour mode {image.mode}, which cannot become RGB", "Save it as RGB JPEG or PNG."
        ) from None


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit grey -> mode L by the high byte, as Pillow itself does for 16-bit RGB."""
    gray = Image.new("L", image.size)
    for top in range(0, image.height, _STRIP_ROWS):
        values = np.asarray(image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height))))
        gray.paste(Image.fromarray((values >> 8).astype(np.uint8)), (0, top))
    return gray
