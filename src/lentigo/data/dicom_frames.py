"""Pixels of one DICOM frame: where it lies, its decompression, and its colours or greys as 8-bit values.

Work goes by strips of rows: the floats of a whole 50-megapixel frame would take more than a gigabyte.
"""

from __future__ import annotations

import io
import itertools
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lentigo.data.dicom_header import BrokenDicom, Elements
from lentigo.data.wholeness import ends_in_nothing, find_damage

RLE = "1.2.840.10008.1.2.5"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_STRIP_PIXELS = 2**20
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True, slots=True, eq=False)
class RawFrame:
    """values: (H, W) or (H, W, 3), 8 or 16 bits as stored; colour: their photometric interpretation."""

    values: NDArray[Any]
    colour: str


def held_frames(stream: IO[bytes], elements: Elements) -> int:
    """The number of frames that the header gives, once the pixel data are known to have room for them.

    Raises:
        BrokenDicom: where they have not, or hold more than the header says.
    """
    text = elements.texts.get("number_of_frames", "") or "1"
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise BrokenDicom("the number of frames is not one from 1 to 999,999,999")
    frames = int(text)
    if elements.texts["transfer_syntax"] in NATIVE:
        _check_native_length(stream, elements, frames)
    elif elements.pixel_length is not None:
        raise BrokenDicom("compressed pixels of a defined length")
    else:
        fragments = _count_fragments(stream, elements)
        if fragments < frames:
            raise BrokenDicom(f"{frames} frames are announced; {fragments} fragments of them are there")
    return frames


def _check_native_length(stream: IO[bytes], elements: Elements, frames: int) -> None:
    numbers = elements.numbers
    # YBR_FULL_422 shares its two colour values between two pixels.
    values = 2 if _colour(elements) == "YBR_FULL_422" else numbers.get("samples_per_pixel", 1)
    if values == 2 and numbers["columns"] % 2:
        raise BrokenDicom("an odd number of columns in YBR_FULL_422")
    expected = frames * numbers["rows"] * numbers["columns"] * values * numbers["bits_allocated"] // 8
    there = stream.seek(0, 2) - elements.pixel_offset
    if elements.pixel_length not in (expected, expected + expected % 2):
        found = "an undefined number of" if elements.pixel_length is None else elements.pixel_length
        raise BrokenDicom(f"{frames} frames take {expected} bytes; the pixel data have {found} bytes")
    if there < expected:
        raise BrokenDicom(f"{frames} frames take {expected} bytes; the file ends after {max(there, 0)}")


def _count_fragments(stream: IO[bytes], elements: Elements) -> int:
    file_bytes = stream.seek(0, 2)
    stream.seek(elements.pixel_offset)
    count = -1  # the first item is the offset table
    while (head := stream.read(8)) and head[:4] != _SEQUENCE_END:
        if len(head) < 8 or head[:4] != _ITEM:
            raise BrokenDicom("its fragments are truncated or damaged")
        count += 1
        if stream.seek(struct.unpack("<L", head[4:])[0], 1) > file_bytes:
            raise BrokenDicom("a fragment is longer than the file")
    return count


def decode_frame(stream: IO[bytes], elements: Elements, index: int, frames: int) -> RawFrame:
    """The values of one frame as they are stored, decompressed.

    Raises:
        BrokenDicom: where the frame is damaged; pydicom and Pillow raise other kinds besides.
    """
    from pydicom.encaps import encapsulate, get_frame
    from pydicom.pixels import get_decoder

    numbers, syntax = elements.numbers, elements.texts["transfer_syntax"]
    options: dict[str, Any] = {
        **{name: numbers[name] for name in ("rows", "columns", "bits_allocated", "bits_stored")},
        "samples_per_pixel": numbers.get("samples_per_pixel", 1),
        "planar_configuration": numbers.get("planar_configuration", 0),
        "pixel_representation": numbers.get("pixel_representation", 0),
        "photometric_interpretation": _colour(elements),
        "pixel_keyword": "PixelData",
    }
    stream.seek(elements.pixel_offset)
    if syntax in NATIVE:
        options |= {"number_of_frames": frames, "pixel_vr": elements.pixel_vr or "OW"}
        values, found = get_decoder(syntax).as_array(stream, index=index, raw=True, view_only=True, **options)
        return RawFrame(values, found["photometric_interpretation"])
    values = elements.values
    tables = ("extended_offsets", "extended_lengths")
    offsets = tuple(values[table] for table in tables) if all(table in values for table in tables) else None
    data = get_frame(stream, index, number_of_frames=frames, extended_offsets=offsets)
    if syntax == RLE:
        return RawFrame(_decode_rle(data, numbers, options["samples_per_pixel"]), _colour(elements))
    _check_picture(data, numbers)
    # One frame, wrapped again, so that pydicom sees what was checked here and nothing else.
    options |= {"number_of_frames": 1, "pixel_vr": "OB"}
    pixels, found = get_decoder(syntax).as_array(encapsulate([data]), index=0, raw=True, **options)
    return RawFrame(pixels, found["photometric_interpretation"])


def _colour(elements: Elements) -> str:
    return elements.texts["photometric_interpretation"]


def _check_picture(data: bytes, numbers: dict[str, int]) -> None:
    """A JPEG inside may be damaged by itself, or of another size than the header says."""
    stream = io.BytesIO(data)
    damage = find_damage(stream)
    if damage:
        raise BrokenDicom(damage)
    image = Image.open(io.BytesIO(data), formats=("JPEG", "JPEG2000"))
    if image.size != (numbers["columns"], numbers["rows"]):
        raise BrokenDicom(f"the picture inside is {image.width} x {image.height} pixels, its header says otherwise")
    if image.format == "JPEG" and ends_in_nothing(image, stream):
        raise BrokenDicom("the end of the picture inside is missing")


def _decode_rle(data: bytes, numbers: dict[str, int], samples: int) -> NDArray[Any]:
    """DICOM PS3.5 annex G: one run-length segment for each byte of each sample, the high byte first.

    pydicom decodes these too, but expands a hostile segment 64-fold before it looks at the size.
    """
    size, sample_bytes = (numbers["rows"], numbers["columns"]), numbers["bits_allocated"] // 8
    count, *offsets = struct.unpack("<16L", data[:64])
    if count != samples * sample_bytes:
        raise BrokenDicom(f"{count} run-length segments instead of {samples * sample_bytes}")
    planes = [
        np.frombuffer(_unpack_runs(data[start:end], size[0] * size[1]), np.uint8)
        for start, end in itertools.pairwise([*offsets[:count], len(data)])
    ]
    values: list[NDArray[Any]] = list(planes)
    if sample_bytes == 2:
        values = [planes[i].astype(np.uint16) << 8 | planes[i + 1] for i in range(0, count, 2)]
    shaped = np.stack(values, axis=-1).reshape(*size, samples)
    return shaped if samples > 1 else shaped[:, :, 0]


def _unpack_runs(data: bytes, size: int) -> bytearray:
    out, position = bytearray(), 0
    while len(out) < size and position < len(data):
        control = data[position]
        if control < 128:
            out += data[position + 1 : position + 2 + control]
            position += 2 + control
        elif control > 128:
            out += data[position + 1 : position + 2] * (257 - control)
            position += 2
        else:
            position += 1
    # A segment is padded to an even number of bytes.
    if len(out) != size or not 0 <= len(data) - position <= 1:
        raise BrokenDicom("a run-length segment is truncated or damaged")
    return out


def to_rgb_or_gray(raw: RawFrame, elements: Elements) -> NDArray[np.uint8]:
    """Stored values -> uint8, (H, W, 3) RGB or (H, W) grey.

    Raises:
        BrokenDicom: where a palette or a grey window is missing or damaged.
    """
    if raw.colour == "PALETTE COLOR":
        return _by_palette(raw.values, elements)
    if raw.colour.startswith("MONOCHROME"):
        return _by_window(raw.values, elements, inverted=raw.colour == "MONOCHROME1")
    shift = elements.numbers["bits_stored"] - 8
    colours = (raw.values >> shift).astype(np.uint8) if shift else raw.values
    if raw.colour.startswith("YBR"):
        from pydicom.pixels.processing import convert_color_space

        out = np.empty(colours.shape, np.uint8)
        for strip in _strips(colours):
            out[strip] = convert_color_space(colours[strip], "YBR_FULL", "RGB")
        return out
    return colours


def _strips(values: NDArray[Any]) -> Iterator[slice]:
    """Rows that together hold about a megapixel."""
    rows = max(1, _STRIP_PIXELS // values.shape[1])
    return (slice(start, start + rows) for start in range(0, values.shape[0], rows))


def _by_palette(values: NDArray[Any], elements: Elements) -> NDArray[np.uint8]:
    """DICOM PS3.3 C.7.6.3.1.5: three tables of 8 or 16 bits; values beyond their ends take the end."""
    tables = []
    for colour in ("red", "green", "blue"):
        descriptor, data = (elements.values.get(f"{colour}_{part}", b"") for part in ("descriptor", "palette"))
        if len(descriptor) != 6 or not data:
            raise BrokenDicom("PALETTE COLOR without its palette, or with a segmented one")
        order = ">" if elements.big_endian else "<"
        count, first, bits = struct.unpack(f"{order}3H", descriptor)
        count = count or 2**16
        if bits not in (8, 16) or len(data) < count * bits // 8:
            raise BrokenDicom(f"a palette of {count} colours in {len(data)} bytes")
        words = len(data) >= 2 * count
        table = np.frombuffer(data, f"{order}u2" if words else np.uint8, count)
        tables.append((first, (table >> (bits - 8) if words else table).astype(np.uint8)))
    out = np.empty((*values.shape, 3), np.uint8)
    for strip in _strips(values):
        for channel, (first, table) in enumerate(tables):
            out[strip, :, channel] = table[np.clip(values[strip].astype(np.int32) - first, 0, len(table) - 1)]
    return out


def _by_window(values: NDArray[Any], elements: Elements, *, inverted: bool) -> NDArray[np.uint8]:
    """Linear window to 0..255, DICOM PS3.3 C.11.2.1.2."""
    slope, intercept = _number(elements, "rescale_slope", 1.0), _number(elements, "rescale_intercept", 0.0)
    center, width = _number(elements, "window_center", math.nan), _number(elements, "window_width", math.nan)
    bits = elements.numbers["bits_stored"]
    if width > 1 and not math.isnan(center):
        low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    elif bits <= 8:
        low, high = 0.0, 2.0**bits - 1
    else:
        ends = [float(end) * slope + intercept for end in (values.min(), values.max())]
        low, high = min(ends), max(ends)
    out = np.empty(values.shape, np.uint8)
    for strip in _strips(values):
        scaled = (values[strip].astype(np.float64) * slope + intercept - low) / max(high - low, 1e-9)
        out[strip] = np.rint(np.clip(scaled, 0, 1) * 255)
    return 255 - out if inverted else out


def _number(elements: Elements, name: str, missing: float) -> float:
    """The first of the values of a decimal string."""
    text = elements.texts.get(name, "").split("\\")[0].strip()
    if not text:
        return missing
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise BrokenDicom(f"its {name.replace('_', ' ')} is not a number")
    return value
