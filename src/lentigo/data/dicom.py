"""One frame of a DICOM photograph -> 8-bit pixels. Needs the extra `dicom`.

Dermoscopic, photographic and secondary-capture images. No text of a file is ever repeated: messages name only
numbers, and objects, encodings and colour models that the standard lists, so no patient can be read from them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import DataError, MissingExtraError
from lentigo.data.dicom_frames import NATIVE, RLE, decode_frame, held_frames, to_rgb_or_gray
from lentigo.data.dicom_header import PREAMBLE_BYTES, BrokenDicom, Elements, read_elements

HEADER_BYTES = PREAMBLE_BYTES

_VISIBLE_LIGHT, _CAPTURE = "1.2.840.10008.5.1.4.1.1.77.1.", "1.2.840.10008.5.1.4.1.1.7"
SOP_CLASSES = (f"{_VISIBLE_LIGHT}7", f"{_VISIBLE_LIGHT}4", _CAPTURE, *(f"{_CAPTURE}.{kind}" for kind in (2, 3, 4)))
"""Dermoscopic Photography, VL Photographic, Secondary Capture, and its multi-frame forms but the 1-bit one."""
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
TRANSFER_SYNTAXES = (*NATIVE, RLE, *_JPEG, *JPEG_2000)
"""Little and big endian, RLE, JPEG Baseline and Extended (8 bits), JPEG 2000."""
_GRAYS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_REFUSED_COLOURS = ("YBR_PARTIAL_420", "YBR_PARTIAL_422", "XYB", "HSV", "ARGB", "CMYK")
_NEEDED = {
    "rows": "Rows",
    "columns": "Columns",
    "photometric_interpretation": "PhotometricInterpretation",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
}
_REMEDY = "Export the image again, or convert it to JPEG or PNG."


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """pixels: uint8, (H, W, 3) RGB or (H, W) grey; profile: the ICC profile of the colours, None without one."""

    pixels: NDArray[np.uint8]
    profile: bytes | None


def is_dicom(head: bytes) -> bool:
    """Whether the first `HEADER_BYTES` of a file are a DICOM preamble."""
    return head[128:HEADER_BYTES] == b"DICM"


def dicom_size(stream: IO[bytes], name: str) -> tuple[int, int]:
    """(width, height) in pixels, without reading the pixels."""
    numbers = _header(stream, name).numbers
    return numbers["columns"], numbers["rows"]


def is_jpeg_2000(stream: IO[bytes], name: str) -> bool:
    """Whether the pixels are JPEG 2000, whose decoder needs several times the memory of others."""
    return _header(stream, name).texts["transfer_syntax"] in JPEG_2000


def count_dicom_frames(stream: IO[bytes], name: str) -> int:
    """How many frames the file says it has, and does have room for."""
    return _frames(stream, _header(stream, name), name)


def read_dicom(stream: IO[bytes], name: str, frame: int = 0) -> Frame:
    """One frame, counted from 0.

    Grey values go through the rescale and the first linear window of the file; without a window, through the range
    of the frame (16 bits) or of its bits (8 bits). MONOCHROME1 is inverted, palettes and YBR become RGB.

    Raises:
        DataError: where the file is damaged, of another kind than a photograph, or has no such frame.
        MissingExtraError: without pydicom.
    """
    elements = _header(stream, name)
    frames = _frames(stream, elements, name)
    if not 0 <= frame < frames:
        raise DataError(
            f"{name} has {frames} frames; there is no frame {frame}", f"Frames count from 0 to {frames - 1}."
        )
    try:
        raw = decode_frame(stream, elements, frame, frames)
        pixels = to_rgb_or_gray(raw, elements)
    except BrokenDicom as error:
        raise _unreadable(name, str(error)) from None
    except Exception:  # decoders raise many kinds, whose texts may quote the file
        raise _unreadable(name, "they are truncated, damaged or of another form than the header says") from None
    return Frame(pixels, elements.values.get("icc_profile"))


def _header(stream: IO[bytes], name: str) -> Elements:
    """The elements of a photograph that Lentigo can read; everything else is refused here."""
    try:
        import pydicom
    except ImportError:
        raise MissingExtraError("pydicom", "dicom") from None
    # It logs what it stumbles over, values of the file included.
    logging.getLogger(pydicom.__name__).setLevel(logging.CRITICAL + 1)
    try:
        elements = read_elements(stream)
    except BrokenDicom as error:
        raise DataError(f"{name} is a damaged DICOM file: {error}", _REMEDY) from None
    texts, numbers = elements.texts, elements.numbers
    _refuse_other(texts.get("transfer_syntax", ""), TRANSFER_SYNTAXES, f"{name} is a DICOM file whose encoding is")
    missing = [label for key, label in _NEEDED.items() if key not in texts and key not in numbers]
    if missing:
        raise DataError(f"{name} is a DICOM file without an image (no {', '.join(missing)})", _REMEDY)
    kind = texts.get("sop_class") or texts.get("media_sop_class", "")
    _refuse_other(kind, SOP_CLASSES, f"{name} is a DICOM file, and no photograph: it is")
    colour = texts["photometric_interpretation"]
    if colour not in (*_GRAYS, *_COLOURS):
        found = colour if colour in _REFUSED_COLOURS else "another colour model"
        raise DataError(
            f"{name}: expected a DICOM image in MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB or YBR; found {found}",
            "Convert the image to JPEG or PNG.",
        )
    stored, allocated = numbers["bits_stored"], numbers["bits_allocated"]
    samples, signed = numbers.get("samples_per_pixel", 1), numbers.get("pixel_representation", 0)
    if (
        samples != (3 if colour in _COLOURS else 1)
        or allocated not in (8, 16)
        or not (8 if colour in _COLOURS else 1) <= stored <= allocated
        or signed not in ((0,) if colour in (*_COLOURS, "PALETTE COLOR") else (0, 1))
        or numbers.get("planar_configuration", 0) not in (0, 1)
        or not numbers["rows"] * numbers["columns"]
    ):
        raise DataError(
            f"{name} is a damaged DICOM file, or of a rare form: {numbers['columns']} x {numbers['rows']} pixels "
            f"of {samples} values in {stored} of {allocated} bits",
            _REMEDY,
        )
    return elements


def _frames(stream: IO[bytes], elements: Elements, name: str) -> int:
    try:
        return held_frames(stream, elements)
    except BrokenDicom as error:
        raise _unreadable(name, str(error)) from None


def _refuse_other(uid: str, known: tuple[str, ...], sentence: str) -> None:
    """Only names that the standard gives are shown: a damaged file may hold any text in place of a UID."""
    from pydicom.uid import UID_dictionary

    if uid not in known:
        found = UID_dictionary[uid][0] if uid in UID_dictionary else "not one of the standard's"
        raise DataError(f"{sentence} {found}, which Lentigo does not read", _REMEDY)


def _unreadable(name: str, why: str) -> DataError:
    return DataError(f"{name} is a DICOM file whose pixels cannot be read: {why}", _REMEDY)
