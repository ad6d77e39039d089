"""Whether an encoded image is all there. Pillow decodes what is left of some damaged files without a word.

JPEG (ITU-T T.81) has no checksum: what can be known from its markers is checked here, and whether a grey end of the
picture is the picture or the lack of it. Flipped bits that still decode cannot be told from another photograph.
PNG carries a checksum a chunk, which Pillow skips for the pixels.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import IO

from PIL import Image

MAX_SCANS = 200
"""Progressive files have about ten; each of thousands takes the time of a whole decoding."""
MAX_EXTRA_CHUNK_BYTES = 32 * 2**20
"""Of texts, profiles and the like in a PNG."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_CHECKED_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_READ_BYTES = 2**18
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)
_EOI, _SOS, _DRI = 0xD9, 0xDA, 0xDD
_RESTARTS = range(0xD0, 0xD8)
_BETWEEN_SCANS = {0xC4, _EOI, _SOS, 0xDB, _DRI, 0xFE, *range(0xE0, 0xF0)}
"""Tables, comments and application data may stand between scans."""
_ALL_COEFFICIENTS = (1 << 64) - 1
_FILLER = bytes(range(1, 255)) * 8
_STRIP_ROWS = 256
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PLAIN = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass, and the steps between its pixels."""


def find_damage(stream: IO[bytes]) -> str:
    """What shows that an encoded JPEG or PNG is not whole, from the stream's start; empty where nothing does."""
    stream.seek(0)
    head = stream.read(len(_PNG))
    try:
        if head == _PNG:
            return _png_damage(stream)
        if head.startswith(_JPEG):
            stream.seek(0)
            _walk_jpeg(stream.read())
    except _DamageError as error:
        return str(error)
    except (struct.error, IndexError, KeyError, ZeroDivisionError):
        return "its segments are cut or damaged"
    return ""


def in_several_scans(stream: IO[bytes]) -> bool:
    """Whether an undamaged JPEG takes several scans, which the decoder gathers in memory."""
    stream.seek(0)
    return _walk_jpeg(stream.read()).scans > 1


def ends_in_nothing(image: Image.Image, stream: IO[bytes]) -> bool:
    """Whether pixels of a decoded JPEG or PNG are only what a decoder leaves where data are missing.

    `image` as decoded from `stream`. The rest of a JPEG of one scan is middle grey, that of a PNG zero; where a
    picture ends so, it is looked at more closely, and JPEGs in several pieces always: they are decoded twice.
    The lack of less than one block of 8 to 16 pixels at the very end goes unseen.
    """
    corner = image.getpixel((image.width - 1, image.height - 1))
    values = corner if isinstance(corner, tuple) else (corner,)
    stream.seek(0)
    if image.format == "PNG":
        return not any(values) and _png_lacks_rows(stream)
    return image.format == "JPEG" and _jpeg_lacks_data(image, stream.read(), grey_end=set(values) <= {127, 128})


def _jpeg_lacks_data(image: Image.Image, data: bytes, *, grey_end: bool) -> bool:
    """Whether more data before the ends of the scans change the picture: a complete scan is not read on.

    With one scan of one piece all that lacks is at its end; with several, every one may lack some.
    """
    ends = _walk_jpeg(data).ends
    if len(ends) == 1 and not grey_end:
        return False
    parts = (data[start:end] for start, end in itertools.pairwise([0, *ends, len(data)]))
    filled = Image.open(io.BytesIO(_FILLER.join(parts)), formats=("JPEG",))
    boxes = [(0, top, image.width, min(top + _STRIP_ROWS, image.height)) for top in range(0, image.height, _STRIP_ROWS)]
    return any(filled.crop(box).tobytes() != image.crop(box).tobytes() for box in boxes)


def _png_lacks_rows(stream: IO[bytes]) -> bool:
    """Whether the compressed data hold fewer bytes than the rows take (PNG specification, 3rd edition, 7 and 8)."""
    inflate, inflated = zlib.decompressobj(), 0
    expected = 0
    stream.seek(len(_PNG))
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">L4s", head)
        if kind == b"IHDR":
            width, height, bits, colour, *_, interlaced = struct.unpack(">LLBBBBB", stream.read(length))
            for left, top, right, down in _ADAM7 if interlaced else _PLAIN:
                columns, rows = -(-(width - left) // right), -(-(height - top) // down)
                row_bytes = 1 + -(-columns * bits * _PNG_CHANNELS[colour] // 8)
                expected += rows * row_bytes if columns > 0 and rows > 0 else 0
        elif kind == b"IDAT":
            for start in range(0, length, _READ_BYTES):
                data = stream.read(min(_READ_BYTES, length - start))
                while data and inflated < expected:
                    inflated += len(inflate.decompress(data, 16 * _READ_BYTES))
                    data = inflate.unconsumed_tail
        else:
            stream.seek(length, 1)
        stream.seek(4, 1)
    return inflated < expected


class _DamageError(Exception):
    """The text says what is wrong."""


def _png_damage(stream: IO[bytes]) -> str:
    """Chunks one after the other; `stream` stands behind the signature."""
    while True:
        head = stream.read(8)
        if len(head) < 8:
            return "its last part is missing"
        length, kind = struct.unpack(">L4s", head)
        if kind not in _CHECKED_CHUNKS:
            if length > MAX_EXTRA_CHUNK_BYTES:
                return f"it holds {length} bytes besides the picture; at most {MAX_EXTRA_CHUNK_BYTES} are read"
            stream.seek(length + 4, 1)
            if kind == b"IEND":
                return ""
            continue
        checksum = zlib.crc32(kind)
        for start in range(0, length, _READ_BYTES):
            data = stream.read(min(_READ_BYTES, length - start))
            if not data:
                return "its last part is missing"
            checksum = zlib.crc32(data, checksum)
        if stream.read(4) != struct.pack(">L", checksum):
            return "a checksum does not fit"


@dataclass
class _Jpeg:
    """What a walk over the markers of a JPEG has met so far; `ends`: where scans and restart intervals end."""

    progressive: bool = False
    size: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    complete: dict[int, int] = field(default_factory=dict)
    restart_interval: int = 0
    scans: int = 0
    ends: list[int] = field(default_factory=list)


def _walk_jpeg(data: bytes) -> _Jpeg:
    """Every segment up to the end mark.

    Raises:
        _DamageError: where scans are cut, missing, or too many; other errors on damaged segments.
    """
    jpeg, position = _Jpeg(), 2
    while True:
        match = _MARKER.search(data, position)
        if match is None:
            raise _DamageError("its end mark is missing")
        marker, position = data[match.start() + 1], match.end()
        if marker == _EOI:
            break
        if marker in _RESTARTS or marker in (0x01, 0xD8):
            continue  # these have no length
        length = struct.unpack_from(">H", data, position)[0]
        body, position = data[position + 2 : position + length], position + max(length, 2)
        if marker in _SEQUENTIAL or marker in _PROGRESSIVE:
            jpeg.progressive = marker in _PROGRESSIVE
            jpeg.size = struct.unpack_from(">HH", body, 1)[::-1]
            parts = (body[start : start + 3] for start in range(6, 6 + 3 * body[5], 3))
            jpeg.sampling = {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
            jpeg.complete = dict.fromkeys(jpeg.sampling, 0)
        elif marker == _DRI:
            jpeg.restart_interval = struct.unpack(">H", body)[0]
        elif marker == _SOS:
            position = _walk_scan(data, position, body, jpeg)
    if not jpeg.scans or any(mask != _ALL_COEFFICIENTS for mask in jpeg.complete.values()):
        raise _DamageError("its last scans are missing")
    return jpeg


def _walk_scan(data: bytes, position: int, header: bytes, jpeg: _Jpeg) -> int:
    """Where the scan ends, noting in `jpeg` what it brought."""
    jpeg.scans += 1
    if jpeg.scans > MAX_SCANS:
        raise _DamageError(f"it has more than {MAX_SCANS} scans")
    components = [header[1 + 2 * i] for i in range(header[0])]
    first, last, precision = header[-3], header[-2], header[-1] & 15
    for component in components:
        if not jpeg.progressive:
            jpeg.complete[component] = _ALL_COEFFICIENTS
        elif precision == 0:
            jpeg.complete[component] |= (1 << (last + 1)) - (1 << first)
    for restarts, match in enumerate(_MARKER.finditer(data, position)):
        marker = data[match.start() + 1]
        jpeg.ends.append(match.start())
        if marker not in _RESTARTS:
            if marker not in _BETWEEN_SCANS or restarts != _expected_restarts(jpeg, components):
                raise _DamageError("a scan ends too early")
            return match.start()
        if not jpeg.restart_interval or marker - _RESTARTS[0] != restarts % 8:
            raise _DamageError("its restart marks are out of order")
    raise _DamageError("its end mark is missing")


def _expected_restarts(jpeg: _Jpeg, components: list[int]) -> int:
    """Marks between the restart intervals of a scan: T.81 A.2 counts its units."""
    if not jpeg.restart_interval:
        return 0
    most = [max(sampling[axis] for sampling in jpeg.sampling.values()) for axis in (0, 1)]
    # A scan of one component has one block a unit, over the component's own size.
    own = jpeg.sampling[components[0]] if len(components) == 1 else (1, 1)
    units = math.prod(-(-side * own[axis] // (8 * most[axis])) for axis, side in enumerate(jpeg.size))
    return -(-units // jpeg.restart_interval) - 1
