"""Damaged and malicious files give an image or a DataError, and never part of a picture: a sample of the benchmark."""

from __future__ import annotations

import importlib.util
import io
import itertools
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import DataError
from lentigo.data import images, wholeness
from lentigo.data.images import decode_bytes, load_image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FILES = 280


def benchmark(name: str) -> ModuleType:
    """A module of the folder benchmarks, under its own name, as the others there import it."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


pytest.importorskip("pydicom", reason="needs the extra `dicom`")
pytest.importorskip("pillow_heif", reason="needs the extra `heic`")
hostile_originals = benchmark("hostile_originals")
hostile_mutations = benchmark("hostile_mutations")
hostile_bombs = benchmark("hostile_bombs")


@pytest.fixture(scope="module")
def originals() -> dict[str, tuple[str, bytes]]:
    """Variant -> (file name ending, bytes)."""
    found: dict[str, tuple[str, bytes]] = hostile_originals.originals()
    return found


def test_originals_are_decoded(originals: dict[str, tuple[str, bytes]]) -> None:
    picture = np.asarray(hostile_originals.lesion(), dtype=int)
    for variant, (suffix, data) in originals.items():
        image = decode_bytes(data, f"whole.{suffix}")
        assert (image.mode, sorted(image.size)) == ("RGB", sorted(hostile_originals.SIZE_PX)), variant
        if image.size == hostile_originals.SIZE_PX and variant not in ("dicom-gray16", "dicom-palette"):
            assert np.abs(np.asarray(image, dtype=int) - picture).mean() < 3, variant


def test_mutated_files_give_images_or_data_errors(
    originals: dict[str, tuple[str, bytes]], capfd: pytest.CaptureFixture[str]
) -> None:
    whole = {variant: decode_bytes(data, "whole").tobytes() for variant, (_, data) in originals.items()}
    outcomes = {"error": 0, "image": 0}
    messages: list[str] = []
    for file in itertools.chain(hostile_mutations.mutated_files(FILES, 11), hostile_mutations.dicom_files(40, 11)):
        try:
            image = decode_bytes(file.data, f"hostile.{file.suffix}")
        except DataError as error:
            outcomes["error"] += 1
            messages.append(str(error))
        else:
            outcomes["image"] += 1
            if file.kind in hostile_mutations.NEVER_SILENT:
                assert image.tobytes() == whole[file.variant], f"{file.kind} {file.variant}"
    assert min(outcomes.values()) > 30, outcomes
    assert not [message for message in messages if "Planted" in message]
    assert "Warning" not in capfd.readouterr().err


def test_bombs_cost_neither_time_nor_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # for the worker process
    result = benchmark("hostile_files").measure(hostile_bombs.bombs())
    assert result["bad_files"] == []
    assert result["outcomes"]["error"] > 20
    assert result["largest_memory_mb"] < 400, "none of them is a large picture"


def jpeg(image: Image.Image, **options: object) -> bytes:
    """Encoded."""
    return bytes(hostile_originals.saved(image, "JPEG", **options))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_data_is_told_from_a_gray_one(options: dict[str, object], mode: str) -> None:
    picture = hostile_originals.lesion().convert(mode)
    grey_end = picture.copy()
    grey_end.paste((128,) * len(picture.getbands()), (0, 40, 96, 80))
    for whole in (picture, grey_end):
        data = jpeg(whole, quality=90, **options)
        assert wholeness.find_damage(io.BytesIO(data)) == ""
        assert decode_bytes(data, "whole.jpg").size == (96, 80)
    data = jpeg(picture, quality=90, **options)
    for missing in (200, 500, 1000):  # less may be a part of the last block, which cannot be told
        with pytest.raises(DataError, match="damaged"):
            decode_bytes(data[:-missing] + b"\xff\xd9", "closed.jpg")


@pytest.mark.parametrize(("mode", "options"), [("RGB", {}), ("RGBA", {}), ("L", {}), ("P", {}), ("1", {})])
def test_a_png_that_lacks_rows_is_told_from_a_black_one(mode: str, options: dict[str, object]) -> None:
    black = Image.new(mode, (33, 21))
    data = hostile_originals.saved(black, "PNG")
    assert decode_bytes(data, "black.png").size == (33, 21)
    start = data.index(b"IDAT")
    rows = zlib.decompress(data[start + 4 : start + 4 + struct.unpack(">L", data[start - 4 : start])[0]])
    for kept in (0, len(rows) // 2, len(rows) - 1):
        chunks = (
            hostile_mutations.png_chunk(kind, body)
            for kind, body in ((b"IDAT", zlib.compress(rows[:kept])), (b"IEND", b""))
        )
        with pytest.raises(DataError, match="damaged"):
            decode_bytes(data[: start - 4] + b"".join(chunks), "short.png")


def interlaced(width: int, height: int) -> bytes:
    """A black 8-bit RGB PNG in seven passes: rows of each pass written out."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for left, top, right, down in passes:
        columns = len(range(left, width, right))
        rows += bytes(1 + 3 * columns) * len(range(top, height, down)) if columns else b""
    return rows


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1), (9, 17), (64, 40)])
def test_interlaced_rows_are_counted(size: tuple[int, int]) -> None:
    header = hostile_mutations.png_chunk(b"IHDR", struct.pack(">LLBBBBB", *size, 8, 2, 0, 0, 1))
    end = hostile_mutations.png_chunk(b"IEND", b"")
    rows = interlaced(*size)
    for kept, whole in ((len(rows), True), (len(rows) - 1, False)):
        body = hostile_mutations.png_chunk(b"IDAT", zlib.compress(rows[:kept]))
        data = b"\x89PNG\r\n\x1a\n" + header + body + end
        if whole:
            assert decode_bytes(data, "passes.png").size == size
        else:
            with pytest.raises(DataError, match="damaged"):
                decode_bytes(data, "passes.png")


def test_a_flipped_bit_of_a_png_is_found(originals: dict[str, tuple[str, bytes]]) -> None:
    data = bytearray(originals["png"][1])
    for place in range(data.index(b"IDAT") + 4, len(data) - 16, 997):
        data[place] ^= 4
        with pytest.raises(DataError, match="checksum"):
            decode_bytes(bytes(data), "flipped.png")
        data[place] ^= 4
    assert decode_bytes(bytes(data), "whole.png").mode == "RGB"


def test_pnm_with_bytes_to_spare_is_refused() -> None:
    assert decode_bytes(b"P6 2 1 255\n" + bytes(6), "a.ppm").size == (2, 1)
    for data in (b"P6 2 1 255\n" + bytes(7), b"P3 1 1 255\n1 2 3", b"P6 2 1 65535\n" + bytes(12)):
        with pytest.raises(DataError):
            decode_bytes(data, "a.ppm")


def test_long_files_of_formats_that_are_read_whole_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 2000)
    for suffix, data in (
        ("jpg", jpeg(hostile_originals.lesion())),
        ("png", bytes(hostile_originals.saved(hostile_originals.lesion(), "PNG"))),
    ):
        path = tmp_path / f"long.{suffix}"
        path.write_bytes(data + bytes(2000))
        if suffix == "jpg":
            with pytest.raises(DataError, match="too large"):
                load_image(path)
        else:
            assert load_image(path).size == (96, 80)


@pytest.mark.parametrize(
    ("image_format", "kind"), [("TIFF", "TIFF"), ("WEBP", "WEBP"), ("JPEG", "JPEG of several scans")]
)
def test_formats_that_need_more_memory_have_lower_limits(
    image_format: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"progressive": True} if image_format == "JPEG" else {}
    data = hostile_originals.saved(hostile_originals.lesion(), image_format, **options)
    assert images.MAX_PIXELS_OF[kind] < images.MAX_IMAGE_PIXELS
    monkeypatch.setitem(images.MAX_PIXELS_OF, kind, 96 * 80)
    assert decode_bytes(data, "just").size == (96, 80)
    monkeypatch.setitem(images.MAX_PIXELS_OF, kind, 96 * 80 - 1)
    with pytest.raises(DataError, match="too large"):
        decode_bytes(data, "over")


def test_warnings_of_decoders_stay_silent(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(hostile_originals.lesion(), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f broken"))
    path = str(tmp_path / "a.jpg")
    script = f"from pathlib import Path; from lentigo.data.images import load_image; load_image(Path({path!r}))"
    done = subprocess.run([sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
