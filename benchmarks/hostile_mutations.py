"""Ways to damage an image file, each seeded."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from hostile_originals import dicom_file, encapsulate_one, lesion, originals, saved

Generator = np.random.Generator
_HEADER_BYTES = 400
_MAGICS = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8 ", b"II*\0", b"BM", b"GIF89a",
           b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypavif", b"P6 9 9 255\n", b"\0" * 128 + b"DICM")  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostileFile:
    """kind: what was done to it; variant: the format and its variant; suffix: the file name ending without its dot."""

    kind: str
    variant: str
    suffix: str
    data: bytes


def flipped_bits(data: bytes, random: Generator) -> bytes:
    """1 to 16 bits anywhere."""
    return _flipped(data, random, len(data))


def flipped_header_bits(data: bytes, random: Generator) -> bytes:
    """1 to 16 bits near the start, where sizes and offsets stand."""
    return _flipped(data, random, _HEADER_BYTES)


def _flipped(data: bytes, random: Generator, end: int) -> bytes:
    damaged = bytearray(data)
    for place in random.integers(0, min(end, len(data)), int(2 ** random.integers(0, 5))):
        damaged[place] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def truncated(data: bytes, random: Generator) -> bytes:
    """Cut off anywhere."""
    return data[: int(random.integers(1, len(data)))]


def closed_cut(data: bytes, random: Generator) -> bytes:
    """Cut off in its second half, and given a proper end again, as some programs repair files.

    At least 200 bytes are missing: fewer may be a part of the last block of a JPEG, which cannot be told.
    """
    cut = data[: int(random.integers(len(data) // 2, len(data) - 200))]
    if data.startswith(b"\xff\xd8"):
        return cut + b"\xff\xd9"
    if data.startswith(b"\x89PNG"):
        start = data.index(b"IDAT")
        rows = zlib.decompress(data[start + 4 : start + 4 + struct.unpack(">L", data[start - 4 : start])[0]])
        fewer = rows[: int(random.integers(len(rows) // 4, len(rows) - 1))]
        return data[: start - 4] + png_chunk(b"IDAT", zlib.compress(fewer)) + png_chunk(b"IEND", b"")
    if data.startswith(b"RIFF"):
        return data[:4] + struct.pack("<L", len(cut) - 8) + cut[8:]
    if data.startswith(b"GIF8"):
        return cut + b"\0;"
    return cut + b"\0\0"


def zero_tail(data: bytes, random: Generator) -> bytes:
    """Zeros from somewhere to the end: a copy that was interrupted after the space was reserved."""
    start = int(random.integers(len(data) // 4, len(data) - 64))
    return data[:start] + bytes(len(data) - start)


def hole(data: bytes, random: Generator) -> bytes:
    """A part taken out."""
    start, length = int(random.integers(_HEADER_BYTES, len(data) - 64)), int(random.integers(1, 400))
    return data[:start] + data[start + length :]


def zero_hole(data: bytes, random: Generator) -> bytes:
    """A part set to zero: a lost block of a disk."""
    start, length = int(random.integers(0, len(data) - 64)), int(random.integers(8, 512))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def doubled(data: bytes, random: Generator) -> bytes:
    """A part put in twice."""
    start, length = int(random.integers(0, len(data) - 64)), int(random.integers(1, 400))
    return data[: start + length] + data[start:]


def wrong_header(data: bytes, random: Generator) -> bytes:
    """The first bytes of another format."""
    magic = _MAGICS[int(random.integers(len(_MAGICS)))]
    return magic + data[len(magic) if random.integers(2) else 0 :]


def random_words(data: bytes, random: Generator) -> bytes:
    """Extreme numbers where lengths, counts and offsets may stand."""
    damaged = bytearray(data)
    words = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", b"\xfe\xff\0\xe0")
    for place in random.integers(0, min(len(data), 2 * _HEADER_BYTES) - 4, int(random.integers(1, 5))):
        damaged[place : place + 4] = words[int(random.integers(len(words)))]
    return bytes(damaged)


MUTATIONS: tuple[Callable[[bytes, Generator], bytes], ...] = (
    flipped_bits, flipped_header_bits, truncated, closed_cut, zero_tail, hole, zero_hole, doubled, wrong_header,
    random_words,
)  # fmt: skip
NEVER_SILENT = ("truncated", "closed_cut", "wrong_header", "bomb")
"""Kinds whose files give the picture as it was, or an error; the others may decode to another valid picture."""


def mutated_files(count: int, seed: int) -> Iterator[HostileFile]:
    """`count` damaged files, every mutation and variant in turn, and every eighth under another format's ending."""
    variants = list(originals().items())
    for number in range(count):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        variant, (suffix, data) = variants[number // len(MUTATIONS) % len(variants)]
        random = np.random.default_rng([seed, number])
        other = variants[int(random.integers(len(variants)))][1][0]
        yield HostileFile(mutation.__name__, variant, other if number % 8 == 0 else suffix, mutation(data, random))


def dicom_files(count: int, seed: int) -> Iterator[HostileFile]:
    """DICOM files, well formed, whose elements contradict one another."""
    pixels, jpeg = np.asarray(lesion())[None], saved(lesion(), "JPEG")
    syntaxes = [
        f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".4.50", ".4.57", ".4.80", ".4.90", ".5", ".4.102")
    ]
    numbers = (0, 1, 2, 3, 7, 8, 12, 16, 17, 80, 96, 255, 32768, 65535)
    names = (
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "SamplesPerPixel",
        "PixelRepresentation",
        "PlanarConfiguration",
    )
    for number in range(count):
        random = np.random.default_rng([seed, 1, number])
        elements: dict[str, Any] = {
            str(name): int(random.choice(numbers))
            for name in random.choice(names, int(random.integers(1, 4)), replace=False)
        }
        if random.integers(2):
            elements["NumberOfFrames"] = int(random.choice((0, 1, 2, 1000, 2**31 - 1)))
        colour = str(
            random.choice(("RGB", "YBR_FULL", "YBR_FULL_422", "MONOCHROME1", "PALETTE COLOR", "YBR_PARTIAL_420", "HSV"))
        )
        syntax = str(random.choice(syntaxes)) if random.integers(2) else syntaxes[1]
        # Three in the list are native; the others take one compressed frame, whether it is theirs or not.
        encoded = None if syntax in syntaxes[:3] else encapsulate_one(jpeg)
        data = dicom_file(pixels, colour, syntax=syntax, encoded=encoded, **elements)
        yield HostileFile("dicom_elements", "dicom", "dcm", data)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Length, kind, body, checksum."""
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
