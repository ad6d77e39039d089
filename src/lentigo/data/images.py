"""Decode one image: any common file -> upright 8-bit sRGB pixels. The only place that opens image files."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile, UnidentifiedImageError, features

from lentigo.core.errors import DataError, MissingExtraError
from lentigo.data import containers, dicom, heic, srgb, wholeness
from lentigo.data.catalog import Row

MAX_IMAGE_PIXELS = 100_000_000
"""Larger images are refused before decoding: 300 MB of pixels from a few kB is a decompression bomb."""
MAX_PIXELS_OF = {
    "JPEG of several scans": 56_000_000,
    "TIFF": 60_000_000,
    "DICOM": 50_000_000,
    "HEIF": 40_000_000,
    "AVIF": 40_000_000,
    "WEBP": 40_000_000,
    "JPEG 2000": 32_000_000,
}
"""Lower limits where a decoder holds several copies: no image takes a gigabyte (`benchmarks/hostile_files.py`)."""
MAX_FILE_BYTES = 128 * 2**20
"""Longest file of the formats whose decoders want all of it in memory."""
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".dcm", ".heic", ".heif", ".avif",
)  # fmt: skip
"""File name endings of readable images, the most usual first."""

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF8", b"P5", b"P6")
_READ_WHOLE = (b"\xff\xd8\xff", b"RIFF")
_FRAME = "frame:"
_AGAIN = "Copy or download the file again."
_NOISY = r"(PIL|pillow_heif|pydicom)(\.|$)"


def load_image(path: Path, member: str = "") -> Image.Image:
    """The image in a file, or the member of a container, as an upright sRGB image in mode RGB.

    JPEG, PNG, WebP, TIFF, BMP, GIF and AVIF (first frame), HEIC and DICOM; EXIF turns and colour profiles are
    applied, transparency becomes white, 16 bits become 8. Members: "train_images/12" of an `.npz`, "row:17" of a
    pack, "frame:3" of a DICOM file, counted from 0.

    Raises:
        DataError: missing, a directory, empty, truncated, not an image, or over the limits of size.
        MissingExtraError: a DICOM file without pydicom, HEIC without pillow-heif, a pack without pyarrow.
    """
    name = f"{path}#{member}" if member else str(path)
    if member and not member.startswith(_FRAME):
        return decode_bytes(_read_member(path, member), name)
    with open_file(path) as stream:
        return _decode(stream, name, _frame_index(path, member))


def decode_bytes(data: bytes, name: str, frame: int = 0) -> Image.Image:
    """`load_image` for bytes in memory; `name` is what messages call them, `frame` counts from 0."""
    return _decode(io.BytesIO(data), name, frame)


def count_frames(stream: IO[bytes], name: str) -> int:
    """Frames that can be decoded: those of a DICOM file, 1 for others. The stream is left at its start.

    Raises:
        DataError: a file that is empty, or a DICOM file that is damaged or no photograph.
        MissingExtraError: a DICOM file without pydicom.
    """
    frames = dicom.count_dicom_frames(stream, name) if dicom.is_dicom(_peek(stream, name)) else 1
    stream.seek(0)
    return frames


def image_size(path: Path, member: str = "") -> tuple[int, int]:
    """(width, height) in pixels of the upright image, from its header alone.

    Raises:
        DataError: as `load_image`, except that damage after the header goes unseen.
    """
    frame = member.startswith(_FRAME)
    if member and not frame and not member.startswith("row:"):
        return containers.npz_image_size(path, member)
    with open_file(path) if frame or not member else io.BytesIO(_read_member(path, member)) as stream:
        name = f"{path}#{member}" if member else str(path)
        if dicom.is_dicom(_peek(stream, name)):
            return dicom.dicom_size(stream, name)
        image = open_header(stream, name)
        width, height = image.size
        # Pillow turns TIFF files by itself, and already announces the turned size.
        turned = image.format != "TIFF" and srgb.orientation(image) >= 5
        return (height, width) if turned else (width, height)


def read_bytes(row: Row) -> bytes:
    """The encoded bytes of a row's image, which `decode_bytes` reads; `.npz` members and frames come as PPM or PGM.

    Raises:
        DataError: where the file or member is missing or empty.
    """
    if row.member:
        return _read_member(row.path, row.member)
    with open_file(row.path) as stream:
        _peek(stream, row.location)
        return stream.read()


def _read_member(path: Path, member: str) -> bytes:
    if member.startswith("row:"):
        return containers.read_parquet_bytes(path, member)
    if member.startswith(_FRAME):
        image = load_image(path, member)
        return b"P6 %d %d 255\n" % image.size + image.tobytes()
    pixels = containers.read_npz_image(path, member)
    magic = b"P6" if pixels.ndim == 3 else b"P5"
    return b"%s %d %d 255\n" % (magic, pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


def _frame_index(path: Path, member: str) -> int:
    number = member.removeprefix(_FRAME)
    if member and not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise DataError(f"{path} holds no image {member!r}", 'Frames are named like "frame:3", counted from 0.')
    return int(number or 0)


def open_file(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"no image file at {path}", "Restore the file, or remove its row.") from None
    except OSError as error:
        if path.is_dir():
            raise DataError(f"{path} is a directory; expected an image file", "Pass the files inside it.") from None
        raise DataError(f"cannot read {path}: {error.strerror}", "Check the file's permissions.") from None


def _peek(stream: IO[bytes], name: str) -> bytes:
    """The first bytes, with the stream back at its start."""
    head = stream.read(dicom.HEADER_BYTES)
    stream.seek(0)
    if not head:
        raise DataError(f"{name} is empty (0 bytes)", _AGAIN)
    return head


def _decode(stream: IO[bytes], name: str, frame: int) -> Image.Image:
    _silence_warnings()
    # Another library may have switched this process-wide setting on; half-grey lesions must not pass.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if dicom.is_dicom(_peek(stream, name)):
        return _decode_dicom(stream, name, frame)
    if frame:
        raise DataError(f"{name} has 1 frame; there is no frame {frame}", "Only DICOM files are read frame by frame.")
    image = srgb.to_srgb(_load(stream, name), name)
    # Out of the hands of the file's plug-in, which may hold a decoder and its buffers.
    return image.copy() if isinstance(image, ImageFile.ImageFile) else image


def _silence_warnings() -> None:
    """Warnings of the decoders go nowhere: they are errors here or do not matter, and can quote patients' data."""
    # Looked up each time, since whoever sets the filters back (tests do) takes this one away.
    if not any(getattr(module, "pattern", "") == _NOISY for _, _, _, module, _ in warnings.filters):
        warnings.filterwarnings("ignore", module=_NOISY)


def _decode_dicom(stream: IO[bytes], name: str, frame: int) -> Image.Image:
    kind = "JPEG 2000" if dicom.is_jpeg_2000(stream, name) else "DICOM"
    _check_size(*dicom.dicom_size(stream, name), name, kind)
    found = dicom.read_dicom(stream, name, frame)
    image = Image.fromarray(found.pixels)
    if found.profile and image.mode == "RGB":
        image = srgb.apply_profile(image, found.profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _load(stream: IO[bytes], name: str) -> Image.Image:
    """The decoded picture in the file's own mode."""
    image = open_header(stream, name)
    place = stream.tell()
    damage = wholeness.find_damage(stream) or _raw_damage(image, stream)
    if damage:
        raise _truncated(name, damage)
    kind = "JPEG of several scans"
    # The file is walked through once more only where the answer can matter.
    if (
        image.format == "JPEG"
        and image.width * image.height > MAX_PIXELS_OF[kind]
        and wholeness.in_several_scans(stream)
    ):
        _check_size(*image.size, name, kind)
    stream.seek(place)
    try:
        image.load()
        hollow = wholeness.ends_in_nothing(image, stream)
    except Exception as error:  # on damaged files Pillow raises anything from OSError to struct.error
        raise _truncated(name, error) from None
    if hollow:
        raise _truncated(name, "its end is missing")
    return image


def _raw_damage(image: Image.Image, stream: IO[bytes]) -> str:
    """Bytes behind the pixels of a PNM file say that its header is not its own."""
    if image.format != "PPM" or not isinstance(image, ImageFile.ImageFile):
        return ""
    expected = image.width * image.height * len(image.getbands())
    _, _, pixel_offset, _ = image.tile[0]
    found = stream.seek(0, 2) - pixel_offset
    return "" if image.mode in ("L", "RGB") and found == expected else f"{found} bytes instead of {expected}"


def open_header(stream: IO[bytes], name: str) -> Image.Image:
    head = _peek(stream, name)
    media = heic.media_kind(head)
    if media == "other" or (head[:1] == b"P" and not head.startswith(_MAGIC)):
        raise _foreign(name, media)  # plain-text PNM would be read number by number
    if media == "avif" and not features.check("avif"):
        raise DataError(f"{name} is an AVIF file, which this Pillow cannot read", "Install Pillow 11.3 or newer.")
    if media or head.startswith(_READ_WHOLE):
        _check_bytes(stream, name)
    formats = ("AVIF",) if media == "avif" else _FORMATS
    try:
        image = heic.open_heic(stream) if media == "heic" else Image.open(stream, formats=formats)
    except MissingExtraError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error).partition(" exceeds")[0].lower(), MAX_IMAGE_PIXELS) from None
    except Exception as error:  # as above
        if media:
            raise DataError(f"{name} is a truncated or damaged {media.upper()} file", _AGAIN) from None
        if head.startswith(_MAGIC) or not isinstance(error, UnidentifiedImageError):
            raise _truncated(name, error) from None
        raise _foreign(name, media) from None
    _check_size(*image.size, name, str(image.format))
    return image


def _check_bytes(stream: IO[bytes], name: str) -> None:
    found = stream.seek(0, 2)
    stream.seek(0)
    if found > MAX_FILE_BYTES:
        raise DataError(
            f"{name} is too large: at most {MAX_FILE_BYTES >> 20} MiB of its format are read; found {found >> 20} MiB",
            "Shrink the image first, or save it as PNG or TIFF.",
        )


def _check_size(width: int, height: int, name: str, kind: str) -> None:
    limit = MAX_PIXELS_OF.get(kind, MAX_IMAGE_PIXELS)
    if width * height > limit:
        raise _too_large(name, f"{width} x {height} pixels", limit)


def _too_large(name: str, found: str, limit: int) -> DataError:
    return DataError(
        f"{name} is too large: at most {limit // 1_000_000} million pixels are decoded; found {found}",
        "Crop or shrink the image first.",
    )


def _truncated(name: str, error: Exception | str) -> DataError:
    return DataError(f"{name} is truncated or damaged: {error}", _AGAIN)


def _foreign(name: str, media: str) -> DataError:
    if media:
        return DataError(f"{name} is a video, or another file of its kind", "Save one picture of it as JPEG or PNG.")
    return DataError(
        f"{name} is not an image; expected JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC, AVIF or DICOM",
        "Remove the file, or convert it to JPEG or PNG.",
    )
