"""Read every image once: digest, size, file kind, a thumbnail for the duplicate search, what is wrong."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lentigo.core.errors import DataError, LentigoError
from lentigo.data.catalog import Row
from lentigo.data.heic import media_kind
from lentigo.data.images import MAX_IMAGE_PIXELS, decode_bytes, read_bytes
from lentigo.data.wholeness import find_damage

THUMBNAIL_PX = 96
"""Side of the thumbnail: a centre crop of 0.7 still fills the 64 px that registration needs."""
_BATCH = 256
_HEAD_BYTES = 132
_GRAY_TOLERANCE = 6
"""JPEG's chroma rounding moves the channels of a gray picture apart by up to this many of 255 levels."""
_EXIF_ORIENTATION = 0x0112

PROBLEMS = ("missing-file", "zero-byte", "truncated", "not-an-image", "huge", "unreadable")
"""What `Fingerprint.problem` can say."""


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """What one reading of an image leaves behind.

    sha256: digest of the file's bytes, empty where there are none; file_kind: as the function of this name;
    width, height: pixels, 0 where unreadable; thumbnail: (96, 96) uint8 luma of the whole image squeezed to a
    square, None where unreadable; problem: one of `PROBLEMS` or empty, with its detail.
    """

    image_id: str
    sha256: str = ""
    file_kind: str = ""
    width: int = 0
    height: int = 0
    grayscale: bool = False
    thumbnail: NDArray[np.uint8] | None = None
    problem: str = ""
    detail: str = ""


def fingerprint(
    rows: Sequence[Row], *, threads: int, progress: Callable[[int, int], None] | None = None
) -> list[Fingerprint]:
    """One fingerprint a row, in the order of the rows; unreadable images never raise.

    `progress(done, total)` is called from the calling thread after every few hundred images.

    Raises:
        ValueError: where `threads` is under 1.
    """
    found: list[Fingerprint] = []
    with ThreadPoolExecutor(threads) as pool:  # Pillow and hashlib release the lock
        for start in range(0, len(rows), _BATCH):
            found.extend(pool.map(_read, rows[start : start + _BATCH]))
            if progress:
                progress(len(found), len(rows))
    return found


def file_kind(data: bytes) -> str:
    """The format by the first bytes: jpeg, png, webp, tiff, bmp, gif, heic, avif, dicom or pnm, or empty."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    if data.startswith(b"GIF8"):
        return "gif"
    if data.startswith(b"BM"):
        return "bmp"
    if data[:2] in (b"P5", b"P6"):
        return "pnm"
    if (media := media_kind(data[:_HEAD_BYTES])) in ("heic", "avif"):
        return media
    return "dicom" if data[128:132] == b"DICM" else ""


def _read(row: Row) -> Fingerprint:
    try:
        data = read_bytes(row)
    except LentigoError as error:
        return Fingerprint(row.image_id, problem=_reading_problem(row), detail=error.message)
    kind = file_kind(data)
    digest = hashlib.sha256(data).hexdigest()
    try:
        small, (width, height) = (_draft(data) if kind == "jpeg" else None) or _full(data, row.location)
    except LentigoError as error:
        return Fingerprint(row.image_id, digest, kind, problem=_decoding_problem(kind, error), detail=error.message)
    colours = np.asarray(small, dtype=np.int16)
    spread = int((colours.max(axis=2) - colours.min(axis=2)).max())
    box = (THUMBNAIL_PX, THUMBNAIL_PX)
    thumbnail = np.asarray(small.convert("L").resize(box, Image.Resampling.BILINEAR))
    return Fingerprint(row.image_id, digest, kind, width, height, spread <= _GRAY_TOLERANCE, thumbnail)


def _draft(data: bytes) -> tuple[Image.Image, tuple[int, int]] | None:
    """A JPEG decoded at 1/2, 1/4 or 1/8 of its size, in RGB, and its true size; None where `_full` must look.

    libjpeg's scaled decoding saves most of the time on large photographs, and still reads all of the data, so
    that a truncated file is noticed.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
        size = image.size
        plain = image.mode in ("RGB", "L") and image.getexif().get(_EXIF_ORIENTATION, 1) == 1
        if not plain or size[0] * size[1] > MAX_IMAGE_PIXELS or find_damage(io.BytesIO(data)):
            return None
        image.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
        return image.convert("RGB"), size
    except Exception:  # Pillow raises anything on damaged files; decode_bytes finds the right words
        return None


def _full(data: bytes, name: str) -> tuple[Image.Image, tuple[int, int]]:
    image = decode_bytes(data, name)
    size = image.size
    return image.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR, reducing_gap=2.0), size


def _reading_problem(row: Row) -> str:
    try:
        return "zero-byte" if row.path.stat().st_size == 0 else "unreadable"
    except FileNotFoundError:
        return "missing-file"
    except OSError:
        return "unreadable"


def _decoding_problem(kind: str, error: LentigoError) -> str:
    if not isinstance(error, DataError):
        return "unreadable"  # a DICOM file without pydicom says nothing against the file
    if not kind:
        return "not-an-image"
    # decode_bytes has one error type for both; its words are the only difference.
    return "huge" if "too large" in error.message else "truncated"
