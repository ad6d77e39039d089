"""HEIC photographs, as telephones take them, through the extra `heic`; AVIF is read by Pillow itself."""

from __future__ import annotations

from typing import IO

from PIL import Image

from lentigo.core.errors import MissingExtraError

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}


def media_kind(head: bytes) -> str:
    """heic, avif, or other (video) for a file of the ISO base media format by its first bytes; empty for the rest.

    The brands are those of ISO/IEC 23008-12; a file may name both, and then is what its first brand says.
    """
    if head[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))]
    if brands[0] in _AVIF_BRANDS or (brands[0] in (b"mif1", b"msf1") and _AVIF_BRANDS & set(brands)):
        return "avif"
    return "heic" if _HEIC_BRANDS & set(brands) else "other"


def open_heic(stream: IO[bytes]) -> Image.Image:
    """The primary picture, not yet decoded; libheif turns it by itself and its EXIF turn says "upright".

    Raises:
        MissingExtraError: without pillow-heif.
        SyntaxError: where the file is damaged, as Pillow's own plug-ins do.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise MissingExtraError("pillow-heif", "heic") from None
    image: Image.Image = HeifImageFile(stream)
    return image
