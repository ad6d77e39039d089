"""Every kind of image that the runtime takes -> an upright RGB picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lentigo.core.errors import DataError
from lentigo.data.images import MAX_IMAGE_PIXELS, decode_bytes, load_image
from lentigo.data.srgb import to_srgb


@runtime_checkable
class BinaryFile(Protocol):
    """What `open(path, "rb")` and `io.BytesIO` give."""

    def read(self) -> bytes:
        """All bytes from where it stands."""


ImageInput = str | Path | bytes | bytearray | memoryview | BinaryFile | Image.Image | NDArray[np.uint8]
"""A path, the bytes of an image file, a file opened for reading bytes, a Pillow image, or an array (H, W), (H, W, 3)
or (H, W, 4) uint8, 0..255."""

_ONE_IMAGE = (str, Path, bytes, bytearray, memoryview, BinaryFile, Image.Image, np.ndarray)
UNKNOWN_TO_DECODER = "Convert it to PNG or JPEG with another program."
"""What to do where a decoder raises what none of its own refusals is."""
_ARRAY_SHAPES = "(H, W), (H, W, 3) or (H, W, 4)"


def default_name(image: ImageInput, number: int) -> str:
    """What messages and results call an image: its path, or `image-3` for the third of those without."""
    return str(image) if isinstance(image, str | Path) else f"image-{number}"


def each_image(images: ImageInput | Iterable[ImageInput]) -> Iterable[ImageInput]:
    """One image, or what is none and no series of them either, as a list of it; others as they are."""
    if isinstance(images, (*_ONE_IMAGE, Mapping)) or not isinstance(images, Iterable):
        return [images]  # type: ignore[list-item]  # `read_image` refuses what is none
    return images


def read_image(image: ImageInput, name: str) -> Image.Image:
    """The picture in mode RGB, treated as a file with the same content is; `name` is what messages call it.

    Raises:
        DataError: a file that cannot be read, or an object that is no image.
        MissingExtraError: a DICOM or HEIC file without the package that reads it.
    """
    if isinstance(image, str | Path):
        return _from_path(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_bytes(bytes(image), name)
    if isinstance(image, BinaryFile):
        return decode_bytes(_read_file(image, name), name)
    if isinstance(image, np.ndarray):
        image = _from_array(image, name)
    if not isinstance(image, Image.Image):
        raise DataError(
            f"{name}: expected a path, bytes, an open binary file, a Pillow image or an array; found "
            f"{type(image).__name__}",
            "Pass one of these, or a list of them.",
        )
    if not 0 < image.width * image.height <= MAX_IMAGE_PIXELS:
        raise DataError(
            f"{name}: expected 1 to {MAX_IMAGE_PIXELS // 1_000_000} million pixels; found {image.width} x "
            f"{image.height}",
            "Crop or shrink the image first.",
        )
    try:
        image.load()  # `Image.open` puts off decoding
    except Exception as error:  # on damaged files Pillow raises anything from OSError to struct.error
        raise DataError(f"{name} is truncated or damaged: {error}", "Copy or download the file again.") from None
    return to_srgb(image, name)


def _from_path(path: Path) -> Image.Image:
    """`load_image`, whose remedies are for the rows of a catalogue where there is no such file."""
    try:
        path.stat()
    except FileNotFoundError:
        raise DataError(f"no image file at {path}", "Check the path and the working folder.") from None
    except ValueError as error:  # a null byte, or half of a pair of characters
        raise DataError(f"no file can be named {str(path)!a}: {error}", "Check the path.") from None
    except OSError:
        pass  # `load_image` says why
    return load_image(path)


def _read_file(file: BinaryFile, name: str) -> bytes:
    """All that is left in an open file."""
    kind = type(file).__name__
    try:
        content: object = file.read()
    except Exception as error:  # closed, write-only, or no file for all that it has `read`
        raise DataError(f"{name}: this {kind} cannot be read: {error}", 'Open it with open(path, "rb").') from None
    if not isinstance(content, bytes):
        raise DataError(
            f"{name}: expected a file that gives bytes; found {kind}, which gives {type(content).__name__}",
            'Open it with open(path, "rb").',
        )
    if not content:
        raise DataError(f"{name}: expected a file at its start; found {kind} at its end", "Rewind it with .seek(0).")
    return content


def _from_array(array: NDArray[np.uint8], name: str) -> Image.Image:
    if array.dtype != np.uint8:
        raise DataError(
            f"{name}: expected an array of uint8, 0..255; found {array.dtype}",
            "Scale it to 0..255 and convert it with .astype(numpy.uint8).",
        )
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise DataError(
            f"{name}: expected an array {_ARRAY_SHAPES}; found {array.shape}",
            "Put the channels last and pass one array an image, or a list of arrays.",
        )
    return Image.fromarray(np.ascontiguousarray(array))
