"""Decode one image: any common file -> upright 8-bit sRGB pixels. The only place that opens image files."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from lentigo.core.errors import DataError
from lentigo.data import containers, dicom
from lentigo.data.catalog import Row

MAX_IMAGE_PIXELS = 100_000_000
"""Larger images are refused before decoding: 300 MB of pixels from a few kB is a decompression bomb."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".dcm")
"""File name endings of readable images, the most usual first."""

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF8")
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(path: Path, member: str = "") -> Image.Image:
    """The image in a file, or the member of a container, as an upright sRGB image in mode RGB.

    JPEG, PNG, WebP, TIFF, BMP, GIF (first frame) and DICOM; EXIF turns and colour profiles are applied,
    transparency becomes white, 16 bits become 8. Members: "train_images/12" of an `.npz`, "row:17" of a pack.

    Raises:
        DataError: missing, a directory, empty, truncated, not an image, or over `MAX_IMAGE_PIXELS`.
        MissingExtraError: a DICOM file without pydicom, a pack without pyarrow.
    """
    if member:
        data = _read_member(path, member)
        return decode_bytes(data, f"{path}#{member}")
    with open_file(path) as stream:
        return _decode(stream, str(path))


def decode_bytes(data: bytes, name: str) -> Image.Image:
    """`load_image` for bytes in memory; `name` is what messages call them."""
    return _decode(io.BytesIO(data), name)


def image_size(path: Path, member: str = "") -> tuple[int, int]:
    """(width, height) in pixels of the upright image, from its header alone.

    Raises:
        DataError: as `load_image`, except that damage after the header goes unseen.
    """
    if member and not member.startswith("row:"):
        return containers.npz_image_size(path, member)
    with io.BytesIO(_read_member(path, member)) if member else open_file(path) as stream:
        name = f"{path}#{member}" if member else str(path)
        if dicom.is_dicom(_peek(stream, name)):
            return dicom.dicom_size(stream, name)
        image = open_header(stream, name)
        width, height = image.size
        # Pillow turns TIFF files by itself, and already announces the turned size.
        turned = image.format != "TIFF" and _orientation(image) >= 5
        return (height, width) if turned else (width, height)


def read_bytes(row: Row) -> bytes:
    """The encoded bytes of a row's image, which `decode_bytes` reads; an `.npz` member comes as PPM or PGM.

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
    pixels = containers.read_npz_image(path, member)
    magic = b"P6" if pixels.ndim == 3 else b"P5"
    return b"%s %d %d 255\n" % (magic, pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


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
        raise DataError(f"{name} is empty (0 bytes)", "Copy or download the file again.")
    return head


def _decode(stream: IO[bytes], name: str) -> Image.Image:
    if dicom.is_dicom(_peek(stream, name)):
        _check_size(*dicom.dicom_size(stream, name), name)
        stream.seek(0)
        return Image.fromarray(dicom.read_dicom(stream, name)).convert("RGB")
    image = open_header(stream, name)
    # Another library may have switched this process-wide setting on; half-grey lesions must not pass.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image.load()
    except Exception as error:  # on damaged files Pillow raises anything from OSError to struct.error
        raise _truncated(name, error) from None
    return _to_rgb(image, name)


def open_header(stream: IO[bytes], name: str) -> Image.Image:
    head = _peek(stream, name)
    try:
        image = Image.open(stream, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error).partition(" exceeds")[0].lower()) from None
    except Exception as error:  # as above
        if head.startswith(_MAGIC) or not isinstance(error, UnidentifiedImageError):
            raise _truncated(name, error) from None
        raise _foreign(name, head) from None
    _check_size(*image.size, name)
    return image


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_IMAGE_PIXELS:
        raise _too_large(name, f"{width} x {height} pixels")


def _too_large(name: str, found: str) -> DataError:
    return DataError(
        f"{name} is too large: at most {MAX_IMAGE_PIXELS // 1_000_000} million pixels are decoded; found {found}",
        "Crop or shrink the image first.",
    )


def _truncated(name: str, error: Exception) -> DataError:
    return DataError(f"{name} is truncated or damaged: {error}", "Copy or download the file again.")


def _foreign(name: str, head: bytes) -> DataError:
    if head[4:8] == b"ftyp":
        return DataError(
            f"{name} is a HEIC, AVIF or video file, which Lentigo does not read", "Convert it to JPEG or PNG."
        )
    return DataError(
        f"{name} is not an image; expected JPEG, PNG, WebP, TIFF, BMP, GIF or DICOM",
        "Remove the file, or convert it to JPEG or PNG.",
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none or it is broken."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole file to look for a chunk after the pixels
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF blocks raise anything; the pixels are still good
        return 1
    return value if value in _UPRIGHT else 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    orientation = _orientation(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bits(image, name)
    alpha = None
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode not in ("L", "CMYK"):
        image = _convert(image, name)
    image = _convert(_to_srgb(image, profile), name) if profile else _convert(image, name)
    if alpha is not None:
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=alpha)
        image = paper
    return image.transpose(_UPRIGHT[orientation]) if orientation > 1 else image


def _convert(image: Image.Image, name: str) -> Image.Image:
    try:
        return image.convert("RGB")
    except ValueError:
        raise DataError(
            f"{name} has the colour mode {image.mode}, which cannot become RGB", "Save it as RGB JPEG or PNG."
        ) from None


def _to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """16-bit grey -> mode L by the high byte, as Pillow itself does for 16-bit RGB."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"{name} has 32-bit pixels, for which no white level is agreed",
            "Save it with 8 or 16 bits a channel.",
        )
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
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
