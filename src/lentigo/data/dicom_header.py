"""The elements of a DICOM file that describe its pixels, and no other: names and ids of patients are never read.

A walk over tags and lengths (DICOM PS3.5 chapter 7) that seeks past every value it does not need, so that a hostile
file costs neither memory nor time. Numbers and UIDs come out of it as plain values; nothing is guessed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

PREAMBLE_BYTES = 132
UNDEFINED = 0xFFFFFFFF
IMPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.8.1")
"""Data sets that are compressed as a whole; their pixels cannot be found without inflating them."""

_MAX_ELEMENTS = 500_000
"""Walked in about two seconds; sequences of a frame each in long recordings hold about 50."""
_MAX_VALUE_BYTES = 64 * 2**20
"""The longest value wanted is an offset table: 8 bytes a frame."""
_LONG_LENGTH_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA, _FLOAT_PIXELS = 0x7FE00010, (0x7FE00008, 0x7FE00009)

_TEXTS = {
    0x00020002: "media_sop_class",
    0x00020010: "transfer_syntax",
    0x00080016: "sop_class",
    0x00280004: "photometric_interpretation",
    0x00280008: "number_of_frames",
    0x00281050: "window_center",
    0x00281051: "window_width",
    0x00281052: "rescale_intercept",
    0x00281053: "rescale_slope",
}
_NUMBERS = {
    0x00280002: "samples_per_pixel",
    0x00280006: "planar_configuration",
    0x00280010: "rows",
    0x00280011: "columns",
    0x00280100: "bits_allocated",
    0x00280101: "bits_stored",
    0x00280103: "pixel_representation",
}
_BYTES = {
    0x00281101: "red_descriptor",
    0x00281102: "green_descriptor",
    0x00281103: "blue_descriptor",
    0x00281201: "red_palette",
    0x00281202: "green_palette",
    0x00281203: "blue_palette",
    0x00282000: "icc_profile",
    0x7FE00001: "extended_offsets",
    0x7FE00002: "extended_lengths",
}


class BrokenDicom(Exception):
    """The file breaks DICOM's rules; the text names the rule and holds nothing from the file but numbers."""


@dataclass(frozen=True, slots=True)
class Elements:
    """The wanted elements that a file has, by the names above.

    `pixel_offset`: where the value of the pixel data starts in the file, in bytes; `pixel_length`: its length in
    bytes, None where undefined, as for compressed pixels. `big_endian` holds for everything after the file meta group.
    """

    texts: dict[str, str]
    numbers: dict[str, int]
    values: dict[str, bytes]
    big_endian: bool
    pixel_vr: str
    pixel_offset: int
    pixel_length: int | None


def read_elements(stream: IO[bytes]) -> Elements:
    """Walk a DICOM file up to its pixel data; elements within sequences are passed over.

    Raises:
        BrokenDicom: where lengths or value types contradict each other, or there are no pixels.
    """
    stream.seek(0, 2)
    walk = _Walk(stream, file_bytes=stream.tell())
    stream.seek(PREAMBLE_BYTES)
    meta: dict[int, bytes] = {}
    for tag, _, length in walk.elements(explicit=True, order="<", only_group=2):
        if tag in _TEXTS:
            meta[tag] = walk.value(length)
        else:
            walk.skip(length)
    syntax = _text(meta.get(0x00020010, b""))
    if syntax in _DEFLATED:
        return Elements({"transfer_syntax": syntax}, {}, {}, False, "", 0, None)
    stream.seek(walk.element_start)
    order = ">" if syntax == EXPLICIT_BIG else "<"
    found, vr, length = _walk_dataset(walk, explicit=syntax != IMPLICIT_LITTLE, order=order)
    found |= meta
    for tag, name in _NUMBERS.items():
        if tag in found and len(found[tag]) != 2:
            raise BrokenDicom(f"the element {name} has {len(found[tag])} bytes instead of 2")
    return Elements(
        {name: _text(found[tag]) for tag, name in _TEXTS.items() if tag in found},
        {name: struct.unpack(f"{order}H", found[tag])[0] for tag, name in _NUMBERS.items() if tag in found},
        {name: found[tag] for tag, name in _BYTES.items() if tag in found},
        order == ">",
        vr,
        stream.tell(),
        None if length == UNDEFINED else length,
    )


def _walk_dataset(walk: _Walk, *, explicit: bool, order: str) -> tuple[dict[int, bytes], str, int]:
    """Wanted values by tag, and type and length of the pixel data, where the walk ends."""
    found: dict[int, bytes] = {}
    depth = 0
    for tag, vr, length in walk.elements(explicit=explicit, order=order):
        if tag in (_ITEM_END, _SEQUENCE_END):
            depth -= 1
            if depth < 0:
                raise BrokenDicom("a sequence ends that never began")
        elif depth == 0 and tag == _PIXEL_DATA:
            return found, vr, length
        elif depth == 0 and tag in _FLOAT_PIXELS:
            raise BrokenDicom("its pixels are floating-point numbers")
        elif length == UNDEFINED:
            depth += 1
        elif depth == 0 and (tag in _TEXTS or tag in _NUMBERS or tag in _BYTES):
            found[tag] = walk.value(length)
        else:
            walk.skip(length)
    raise BrokenDicom("the file ends within a sequence" if depth else "it has no pixel data")


class _Walk:
    """Reads tags and lengths in the order of the file."""

    def __init__(self, stream: IO[bytes], file_bytes: int) -> None:
        self._stream, self._file_bytes, self._seen = stream, file_bytes, 0
        self.element_start = 0

    def elements(self, *, explicit: bool, order: str, only_group: int | None = None) -> Iterator[tuple[int, str, int]]:
        """(tag, value representation, length) of each element; the caller moves past the value."""
        stream = self._stream
        while True:
            self.element_start = stream.tell()
            head = stream.read(8)
            if not head:
                return
            self._seen += 1
            if len(head) < 8 or self._seen > _MAX_ELEMENTS:
                raise BrokenDicom(
                    "the file ends within an element" if len(head) < 8 else f"more than {_MAX_ELEMENTS} elements"
                )
            group, element = struct.unpack(f"{order}HH", head[:4])
            if only_group not in (None, group):
                return  # what follows may be written in another way
            tag, vr = group << 16 | element, head[4:6]
            if tag in (_ITEM, _ITEM_END, _SEQUENCE_END) or not explicit:
                vr, length = b"", struct.unpack(f"{order}L", head[4:])[0]
            elif vr in _LONG_LENGTH_VRS:
                more = stream.read(4)
                if len(more) < 4:
                    raise BrokenDicom("the file ends within an element")
                length = struct.unpack(f"{order}L", more)[0]
            elif vr.isalpha() and vr.isupper():
                length = struct.unpack(f"{order}H", head[6:])[0]
            else:
                raise BrokenDicom("an element has no type of value")
            yield tag, vr.decode("ascii"), length

    def value(self, length: int) -> bytes:
        """The value at the present place."""
        if length > _MAX_VALUE_BYTES:
            raise BrokenDicom(f"an element of {length} bytes; at most {_MAX_VALUE_BYTES} are read")
        value = self._stream.read(length)
        if len(value) < length:
            raise BrokenDicom("the file ends within an element")
        return value

    def skip(self, length: int) -> None:
        """Past the value at the present place."""
        if self._stream.seek(length, 1) > self._file_bytes:
            raise BrokenDicom("an element is longer than the file")


def _text(value: bytes) -> str:
    return value.decode("ascii", errors="replace").strip(" \0")
