"""Decoding: every mode and format, EXIF turns, colour profiles, and files that must be refused."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from lentigo.core.errors import DataError, MissingExtraError
from lentigo.data import containers
from lentigo.data.catalog import Row
from lentigo.data.images import MAX_IMAGE_PIXELS, count_frames, decode_bytes, image_size, load_image, read_bytes

# Pillow warns about the broken files that these tests make.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """A smooth RGB picture whose four corners differ."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2))
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def largest_difference(first: Image.Image, second: Image.Image) -> int:
    return int(np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max())


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_formats_decode_to_rgb(image_format: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{image_format.lower()}"
    options = {"quality": 95} if image_format in ("JPEG", "WEBP") else {}
    path.write_bytes(encoded(picture(), image_format, **options))
    image = load_image(path)
    assert (image.mode, image.size) == ("RGB", (60, 40))
    assert image_size(path) == (60, 40)
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(picture(), dtype=int)).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(image_format: str, orientation: int, tmp_path: Path) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture().transpose(undo[orientation]) if orientation > 1 else picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if image_format == "JPEG" else {}
    if image_format == "WEBP":
        options = {"lossless": True}
    path = tmp_path / "turned"
    path.write_bytes(encoded(stored, image_format, exif=exif.tobytes(), **options))
    image = load_image(path)
    assert image.size == image_size(path) == (60, 40)
    assert largest_difference(image, picture()) < 20


def test_broken_exif_is_ignored() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode_bytes(data, "broken.jpg").size == (60, 40)


def test_alpha_goes_onto_white() -> None:
    rgba = picture().convert("RGBA")
    rgba.paste((0, 0, 0, 0), (0, 0, 30, 40))
    pixels = np.asarray(decode_bytes(encoded(rgba, "PNG"), "rgba.png"))
    assert (pixels[:, :30] == 255).all()
    assert (pixels[:, 30:] == np.asarray(picture())[:, 30:]).all()


def test_gray_with_alpha() -> None:
    image = Image.new("LA", (4, 4), (0, 128))
    assert 125 <= np.asarray(decode_bytes(encoded(image, "PNG"), "la.png")).mean() <= 129


def test_palette_with_and_without_transparency() -> None:
    palette = picture().quantize(32)
    expected = palette.convert("RGB")
    assert largest_difference(decode_bytes(encoded(palette, "PNG"), "p.png"), expected) == 0
    index = palette.getpixel((0, 0))
    transparent = np.asarray(decode_bytes(encoded(palette, "PNG", transparency=index), "p.png"))
    assert (transparent[0, 0] == 255).all()
    assert (transparent[-1, -1] == np.asarray(expected)[-1, -1]).all()


@pytest.mark.parametrize(("mode", "image_format"), [("L", "JPEG"), ("1", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF")])
def test_other_modes(mode: str, image_format: str) -> None:
    source = picture().convert(mode)
    image = decode_bytes(encoded(source, image_format), "image")
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(source.convert("RGB"), dtype=int)).mean() < 4


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_the_high_byte(image_format: str) -> None:
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], dtype=np.uint16)
    pixels = np.asarray(decode_bytes(encoded(Image.fromarray(values), image_format), "deep"))
    assert pixels[:, :, 0].tolist() == [[0, 0, 1], [128, 254, 255]]
    assert (pixels == pixels[:, :, :1]).all()


def test_16_bit_rgb_png() -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = b"\0" + struct.pack(">HHH", 65535, 32768, 256)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body) for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(pixel)), (b"IEND", b""))
    )
    assert decode_bytes(data, "deep.png").getpixel((0, 0)) == (255, 128, 1)


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 200), ("I", 70_000), ("I", -1)])
def test_pixels_without_a_white_level_are_refused(mode: str, value: float) -> None:
    data = encoded(Image.new(mode, (4, 4), value), "TIFF")
    with pytest.raises(DataError, match="32-bit"):
        decode_bytes(data, "deep.tif")


def test_animation_gives_the_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for image_format in ("GIF", "PNG", "WEBP"):
        data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:])
        red, _, blue = decode_bytes(data, "moving").getpixel((4, 4))
        assert red > 200 > blue


def swapped_profile() -> bytes:
    """An sRGB profile whose red and green primaries (rXYZ, gXYZ tags) are exchanged, under another name."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    marker = data.index(b"rXYZ", 128), data.index(b"gXYZ", 128)
    patched = bytearray(data)
    patched[marker[0] : marker[0] + 4], patched[marker[1] : marker[1] + 4] = b"gXYZ", b"rXYZ"
    name = "sRGB".encode("utf-16-be")
    return bytes(patched).replace(name, "swap".encode("utf-16-be")).replace(b"sRGB built-in", b"swap built-in")


def test_icc_profile_is_applied() -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    for image_format in ("JPEG", "PNG", "TIFF", "WEBP"):
        data = encoded(red, image_format, icc_profile=swapped_profile())
        pixel = decode_bytes(data, "swapped").getpixel((4, 4))
        assert pixel[1] > 240 > 30 > pixel[0], image_format


def test_srgb_profile_changes_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(picture(), "PNG", icc_profile=srgb)
    assert largest_difference(decode_bytes(data, "srgb.png"), picture()) == 0


@pytest.mark.parametrize("profile", [b"not a profile", swapped_profile()[:200]])
def test_broken_profile_is_ignored(profile: bytes) -> None:
    data = encoded(picture(), "PNG", icc_profile=profile)
    assert largest_difference(decode_bytes(data, "broken.png"), picture()) == 0


def test_profile_of_another_mode_is_ignored() -> None:
    gray = picture().convert("L")
    data = encoded(gray, "PNG", icc_profile=swapped_profile())
    assert largest_difference(decode_bytes(data, "gray.png"), gray.convert("RGB")) == 0


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_no_truncated_file_is_decoded_silently(
    image_format: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as if another library had set it
    data = encoded(picture(120, 90), image_format, **options)
    whole = decode_bytes(data, "whole")
    refused = 0
    for length in range(1, len(data), max(1, len(data) // 150)):
        try:
            image = decode_bytes(data[:length], "cut")
        except DataError:
            refused += 1
        else:
            assert largest_difference(image, whole) == 0, f"{image_format} cut to {length} of {len(data)} bytes"
    assert refused > 100


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("side", [10_001, 50_000])
def test_huge_images_are_refused_before_decoding(side: int, tmp_path: Path) -> None:
    assert side * side > MAX_IMAGE_PIXELS
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)))
    for call in (load_image, image_size):
        with pytest.raises(DataError, match="too large"):
            call(path)


def test_unreadable_files_have_distinct_messages(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("this is a note, not a photograph")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "cut.jpg").write_bytes(encoded(picture(), "JPEG")[:400])
    (tmp_path / "stub.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 64)
    expected = {
        "absent.jpg": "no image file",
        "empty.jpg": "is empty",
        "text.jpg": "is not an image",
        "folder.jpg": "is a directory",
        "cut.jpg": "truncated",
        "stub.png": "truncated",
        "phone.heic": "HEIC",
    }
    for name, text in expected.items():
        with pytest.raises(DataError, match=text) as caught:
            load_image(tmp_path / name)
        assert name in caught.value.message
        assert caught.value.remedy


def test_random_damage_gives_images_or_data_errors() -> None:
    rng = np.random.default_rng(5)
    for image_format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        data = np.frombuffer(encoded(picture(), image_format), dtype=np.uint8)
        for _ in range(60):
            damaged = data.copy()
            damaged[rng.integers(0, len(data), 8)] = rng.integers(0, 256, 8)
            with contextlib.suppress(DataError):
                assert decode_bytes(damaged.tobytes(), "damaged").mode == "RGB"


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    path = tmp_path / "arrays.npz"
    np.savez_compressed(
        path,
        train_images=rng.integers(0, 256, (5, 6, 8, 3), dtype=np.uint8),
        gray_images=rng.integers(0, 256, (3, 6, 8), dtype=np.uint8),
        train_labels=np.zeros((5, 1), dtype=np.uint8),
    )
    return path


def test_npz_members(arrays: Path) -> None:
    with np.load(arrays) as archive:
        color, gray = archive["train_images"], archive["gray_images"]
    assert (np.asarray(load_image(arrays, "train_images/4")) == color[4]).all()
    assert (np.asarray(load_image(arrays, "gray_images/2")) == gray[2][:, :, None]).all()
    assert image_size(arrays, "train_images/0") == image_size(arrays, "gray_images/0") == (8, 6)
    row = Row("a", arrays, 0, "a", "gray_images/1")
    assert (np.asarray(decode_bytes(read_bytes(row), "row"))[:, :, 0] == gray[1]).all()


@pytest.mark.parametrize(
    "member", ["train_images/5", "train_images/-1", "train_images", "absent/0", "train_labels/0", "row:0x"]
)
def test_members_that_do_not_exist(arrays: Path, member: str) -> None:
    with pytest.raises(DataError):
        load_image(arrays, member)


def test_a_rewritten_container_is_read_again(arrays: Path) -> None:
    load_image(arrays, "train_images/0")
    np.savez(arrays, train_images=np.full((1, 2, 2, 3), 7, dtype=np.uint8))
    assert load_image(arrays, "train_images/0").getpixel((0, 0)) == (7, 7, 7)


def test_an_array_is_loaded_once(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_image(arrays, "train_images/0")
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("loaded again"))
    load_image(arrays, "train_images/1")


def test_the_cache_is_bounded_by_bytes() -> None:
    cache = containers._BoundedCache(limit_bytes=100)
    for key in range(5):
        cache.get((key,), lambda: np.zeros(40, dtype=np.uint8))
    assert list(cache._values) == [(3,), (4,)]
    cache.get(("large",), lambda: np.zeros(500, dtype=np.uint8))
    assert list(cache._values) == [("large",)]


def test_too_large_arrays_are_refused(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_ARRAY_BYTES", 100)
    with pytest.raises(DataError, match="GiB"):
        load_image(arrays, "train_images/0")


def test_read_bytes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(), "PNG"))
    assert read_bytes(Row("a", path, 0, "a")) == path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        read_bytes(Row("a", path, 0, "a"))


def test_dicom_without_pydicom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match="pydicom"):
        decode_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64, "image.dcm")


def heic(image: Image.Image, **options: object) -> bytes:
    """One picture, or with `append` several."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra `heic`")
    append = options.pop("append", [])
    file = pillow_heif.from_pillow(image)
    for other in append:
        file.add_from_pillow(other)
    buffer = io.BytesIO()
    file.save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_turned_heic_and_avif_are_turned_once(kind: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{kind}"
    if kind == "heic":
        pytest.importorskip("pillow_heif", reason="needs the extra `heic`").register_heif_opener()  # for writing
    path.write_bytes(encoded(picture(), {"heic": "HEIF", "avif": "AVIF"}[kind], exif=exif.tobytes(), quality=95))
    upright = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    expected = picture().transpose(upright[orientation]) if orientation > 1 else picture()
    found = load_image(path)
    assert (found.mode, found.size) == ("RGB", expected.size)
    assert image_size(path) == expected.size
    assert np.abs(np.asarray(found, dtype=int) - np.asarray(expected, dtype=int)).mean() < 6


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_profiles_of_heic_and_avif_are_applied(kind: str) -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    options = {"icc_profile": swapped_profile()}
    if kind == "heic":
        red.info |= options
        data = heic(red, quality=95)
    else:
        data = encoded(red, "AVIF", quality=95, **options)
    pixel = decode_bytes(data, "swapped").getpixel((8, 8))
    assert pixel[1] > 230 > 40 > pixel[0]


def test_heic_burst_gives_its_primary_picture() -> None:
    red, blue = (Image.new("RGB", (64, 64), color) for color in ("red", "blue"))
    pixel = decode_bytes(heic(red, append=[blue]), "burst.heic").getpixel((32, 32))
    assert pixel[0] > 200 > 60 > pixel[2]


def test_heic_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(picture())
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match="pillow-heif") as caught:
        decode_bytes(data, "photo.heic")
    assert "[heic]" in caught.value.remedy


@pytest.mark.parametrize(("kind", "data"), [("heic", heic), ("avif", lambda image: encoded(image, "AVIF"))])
def test_cut_heic_and_avif_are_refused(kind: str, data: Callable[[Image.Image], bytes]) -> None:
    whole = data(picture(120, 90))
    for length in range(16, len(whole), max(1, len(whole) // 60)):
        with pytest.raises(DataError):
            decode_bytes(whole[:length], f"cut.{kind}")


def test_videos_are_named() -> None:
    with pytest.raises(DataError, match="video"):
        decode_bytes(b"\0\0\0\x18ftypisom\0\0\2\0isommp42" + bytes(64), "clip.mp4")


def test_one_frame_but_for_dicom() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    stream = io.BytesIO(data)
    assert count_frames(stream, "a.gif") == 1
    assert stream.tell() == 0
    with pytest.raises(DataError, match="no frame 1"):
        decode_bytes(data, "a.gif", frame=1)


@pytest.mark.parametrize("member", ["frame:", "frame:-1", "frame:x", "frame:1", "frame:99999999999"])
def test_frames_that_do_not_exist(member: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(), "PNG"))
    with pytest.raises(DataError):
        load_image(path, member)
