"""Files made to overwhelm a decoder: huge sizes, endless loops, compressed nothing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from hostile_mutations import HostileFile, png_chunk
from hostile_originals import dicom_file, encapsulate_one, lesion, saved
from PIL import Image

_BASELINE = "1.2.840.10008.1.2.4.50"


def bombs() -> Iterator[HostileFile]:
    """Small files that ask for memory or time without end."""
    for name, (suffix, data) in {**_size_bombs(), **_chunk_bombs(), **_exif_bombs(), **_dicom_bombs()}.items():
        yield HostileFile("bomb", name, suffix, data)


@cache
def compressed_nothing() -> bytes:
    """300 MB of zeros in about a megabyte."""
    return zlib.compress(bytes(300 * 2**20), 1)


def png(width: int, height: int, *extra: bytes, rows: bytes = b"", packed: bytes = b"") -> bytes:
    """8-bit RGB; `rows`: the bytes before compression, black where there are none; `packed`: compressed ones."""
    header = png_chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", packed or zlib.compress(rows or bytes(height * (3 * width + 1))))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + png_chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], following: int = 0, tail: bytes = b"") -> bytes:
    """Little-endian, one directory of (tag, type, count, value or offset)."""
    directory = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<LH", 8, len(entries)) + directory + struct.pack("<L", following) + tail


def _size_bombs() -> dict[str, tuple[str, bytes]]:
    gif = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf0\0\0" + bytes(6) + b"," + bytes(4)
    gif += struct.pack("<HH", 65535, 65535) + b"\0\x02\x02\x4c\x01\0;"
    webp = b"VP8X" + struct.pack("<LL", 10, 0) + (16382).to_bytes(3, "little") * 2
    webp += b"VP8L" + struct.pack("<L", 6) + b"\x2f" + (16382 | 16382 << 14).to_bytes(4, "little") + b"\0"
    bmp = (
        b"BM"
        + struct.pack("<LLL", 1000, 0, 54)
        + struct.pack("<LllHHLLllLL", 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    small = saved(lesion(), "JPEG")
    start = small.index(b"\xff\xc0")
    jpeg = small[: start + 5] + struct.pack(">HH", 65535, 65535) + small[start + 9 :]
    sized = (
        (256, 3, 1, 60000),
        (257, 3, 1, 60000),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
    )
    strip = ((256, 3, 1, 5000), (257, 3, 1, 5000), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1), (273, 4, 1, 8),
             (277, 3, 1, 1), (278, 4, 1, 2**32 - 1), (279, 4, 1, 2**31))  # fmt: skip
    tile = ((256, 3, 1, 500), (257, 3, 1, 500), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
            (322, 4, 1, 2**20), (323, 4, 1, 2**20), (324, 4, 1, 8), (325, 4, 1, 2**20))  # fmt: skip
    return {
        "png-60000": ("png", png(60000, 60000, rows=bytes(1000))),
        "png-many-bytes": ("png", png(50, 50, packed=compressed_nothing())),
        "png-few-bytes": ("png", png(50, 50, rows=bytes(30 * 151))),
        "gif-65535": ("gif", gif),
        "gif-frame-beyond-screen": ("gif", gif[:6] + struct.pack("<HH", 8, 8) + gif[10:]),
        "webp-16383": ("webp", b"RIFF" + struct.pack("<L", len(webp) + 4) + b"WEBP" + webp),
        "bmp-60000": ("bmp", bmp),
        "jpeg-65535": ("jpg", jpeg),
        "jpeg-scans": ("jpg", _scan_bomb()),
        "tiff-60000": ("tif", tiff(*sized)),
        "tiff-strip": ("tif", tiff(*strip)),
        "tiff-tile": ("tif", tiff(*tile)),
        "pnm-text": ("ppm", b"P3 9000 9000 255\n" + b"1 " * 2_000_000),
        "pnm-huge": ("ppm", b"P6 99999 99999 255\n" + bytes(100)),
    }


def _scan_bomb() -> bytes:
    """A progressive JPEG of 9 megapixels whose last scan is repeated 3000 times."""
    data = saved(Image.new("L", (3000, 3000), 90), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 3000 + data[-2:]


def _chunk_bombs() -> dict[str, tuple[str, bytes]]:
    bomb, small_bomb = compressed_nothing(), zlib.compress(bytes(2**20 - 1), 9)
    texts = [png_chunk(b"zTXt", b"k%d\0\0" % i + small_bomb) for i in range(300)]
    return {
        "png-ztxt": ("png", png(50, 50, png_chunk(b"zTXt", b"key\0\0" + bomb))),
        "png-itxt": ("png", png(50, 50, png_chunk(b"iTXt", b"key\0\1\0\0\0" + bomb))),
        "png-iccp": ("png", png(50, 50, png_chunk(b"iCCP", b"name\0\0" + bomb))),
        "png-many-texts": ("png", png(50, 50, *texts)),
        "png-exif": ("png", png(50, 50, png_chunk(b"eXIf", bytes(40 * 2**20)))),
        "png-exif-loop": ("png", png(50, 50, png_chunk(b"eXIf", _loop()))),
        "png-chunk-length": ("png", png(50, 50, struct.pack(">L", 2**31 - 1) + b"tEXt" + bytes(100))),
    }


def _loop() -> bytes:
    """A directory of which every pointer points back to itself."""
    return tiff(*((tag, 4, 1, 8) for tag in (0x8769, 0x8825, 0xA005, 0x014A)), following=8)


def _exif_bombs() -> dict[str, tuple[str, bytes]]:
    picture = lesion()
    counts = tiff((0x0112, 3, 2**32 - 1, 8), (0x010F, 2, 2**31, 8), (0x8769, 4, 2**30, 8))
    many = tiff(*((0x0112, 3, 60_000, 8) for _ in range(5000)))
    found = {}
    for name, exif in {"loop": _loop(), "counts": counts, "many": many}.items():
        found[f"jpeg-exif-{name}"] = ("jpg", saved(picture, "JPEG", exif=b"Exif\0\0" + exif))
        found[f"webp-exif-{name}"] = ("webp", saved(picture, "WEBP", exif=b"Exif\0\0" + exif))
    basic = (
        (256, 3, 1, 10),
        (257, 3, 1, 10),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
    )
    return found | {
        "tiff-loop": ("tif", tiff(*basic, following=8, tail=bytes(100))),
        "tiff-self": ("tif", tiff(*basic, (330, 4, 1, 8), (34665, 4, 1, 8), following=8, tail=bytes(100))),
        "tiff-counts": (
            "tif",
            tiff(*basic, (273, 4, 2**30, 8), (320, 3, 2**32 - 1, 8), (34675, 7, 2**32 - 1, 8), tail=bytes(100)),
        ),
        "tiff-many": (
            "tif",
            tiff(*basic, *((40_000 + i % 20_000, 2, 1000, 8) for i in range(60_000)), tail=bytes(1000)),
        ),
    }


def _dicom_bombs() -> dict[str, tuple[str, bytes]]:
    from pydicom.encaps import encapsulate

    pixels = np.asarray(lesion())[None]
    plain = dicom_file(pixels, "RGB")
    place = plain.index(struct.pack("<HH", 0x7FE0, 0x0010))
    sequence = struct.pack("<HH2sHL", 0x0040, 0x0555, b"SQ", 0, 2**32 - 1)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 2**32 - 1)
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    runs = struct.pack("<16L", 3, 64, 500_000, 1_000_000, *[0] * 12) + b"\x81\0" * 750_000
    jpeg = saved(Image.new("L", (9000, 9000), 7), "JPEG")
    deflated = dicom_file(pixels, "RGB", syntax="1.2.840.10008.1.2.1")
    data_set = deflated.index(struct.pack("<HH", 8, 0x16), 132)
    meta = deflated[:data_set].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    bomb = compressed_nothing()[2:-4]  # without the frame that zlib puts around
    length = meta.index(b"UI", meta.index(struct.pack("<HH", 2, 0x10))) + 2
    meta = meta[:length] + struct.pack("<H", 22) + meta[length + 2 :]
    long = struct.pack("<2sHL", b"OB", 0, 2**32 - 2)
    unneeded, profile = struct.pack("<HH", 0x0040, 0x0555) + long, struct.pack("<HH", 0x0028, 0x2000) + long
    gray: dict[str, Any] = {"SamplesPerPixel": 1, "PlanarConfiguration": None}
    run_length = "1.2.840.10008.1.2.5"
    few: dict[str, Any] = {"NumberOfFrames": 10**6, "encoded": encapsulate([b"ab"] * 50_000)}
    files = {
        "frames": dicom_file(pixels, "RGB", NumberOfFrames=2**31 - 1),
        "size": dicom_file(pixels, "RGB", Rows=65535, Columns=65535),
        "nested": plain[:place] + (sequence + item) * 100_000 + plain[place:],
        "items": plain[:place] + sequence + (item + end) * 400_000 + end + plain[place:],
        "length": plain[:place] + unneeded + plain[place:],
        "profile": plain[:place] + profile + plain[place:],
        "runs": dicom_file(pixels, "RGB", syntax=run_length, encoded=encapsulate_one(runs)),
        "picture-inside": dicom_file(pixels, "MONOCHROME2", syntax=_BASELINE, encoded=encapsulate_one(jpeg), **gray),
        "fragments": dicom_file(pixels, "RGB", syntax=run_length, **few),
        "deflated": meta + bomb,
    }
    return {f"dicom-{name}": ("dcm", data) for name, data in files.items()}
