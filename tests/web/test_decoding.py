"""What the browser decodes otherwise than Pillow, in levels of 255; docs/how-to/page.md tells it."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lentigo.core.errors import DataError
from lentigo.data.images import decode_bytes

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright in this environment")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.web.conftest import Site

pytestmark = pytest.mark.slow
SHAPE = (61, 83)

DECODE = """async (content) => {
  const { decodeImage } = await import("./decode.js");
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  try {
    const { data, width, height } = await decodeImage(new File([bytes], "x"));
    return { width, height, data: Array.from(data) };
  } catch (error) {
    return { error: error.message };
  }
}"""


@pytest.fixture(scope="module")
def tab(chromium: Browser, site: Site) -> Page:
    """The page, whose modules decode."""
    page = chromium.new_context().new_page()
    page.goto(site.address)
    return page


def picture(seed: int = 0, noise: float = 8.0) -> NDArray[np.uint8]:
    """Smooth colours of skin with a dark spot and a little noise, (H, W, 3)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    spot = np.exp(-((y - 30) ** 2 + (x - 45) ** 2) / 250.0)[..., None]
    colors = np.array([205, 150, 130]) * (1 - spot) + np.array([70, 35, 40]) * spot
    return np.clip(colors + generator.normal(0, noise, (*SHAPE, 3)), 0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file's bytes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def wide_profile() -> bytes:
    """The sRGB profile with the primaries of Display P3, under another name."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.5151, 0.2412, -0.0011),
        b"gXYZ": (0.2919, 0.6922, 0.0419),
        b"bXYZ": (0.1572, 0.0666, 0.7841),
    }
    for tag, values in primaries.items():
        entry = profile.index(tag, 128)
        start = struct.unpack(">I", profile[entry + 4 : entry + 8])[0] + 8
        profile[start : start + 12] = struct.pack(">3i", *(round(value * 65536) for value in values))
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "Wide".encode("utf-16-be"))


def with_alpha() -> Image.Image:
    alpha = np.linspace(0, 255, SHAPE[0] * SHAPE[1]).reshape(*SHAPE, 1).astype(np.uint8)
    return Image.fromarray(np.concatenate([picture(), alpha], axis=-1))


def turned_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 8
    return encoded(Image.fromarray(picture()), "JPEG", exif=exif, quality=95)


def turned_webp(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(picture()), "WEBP", exif=exif, lossless=True)


GAMMA = (b"gAMA", struct.pack(">I", 100_000))
PRIMARIES = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
HDR = (b"cICP", bytes([9, 16, 0, 1]))


def png_with(*chunks: tuple[bytes, bytes], profile: bytes | None = None) -> bytes:
    """A PNG whose header is followed by these chunks."""
    content = encoded(Image.fromarray(picture()), "PNG", icc_profile=profile)
    more = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return content[:33] + b"".join(more) + content[33:]


def gray_16() -> bytes:
    gray = np.asarray(Image.fromarray(picture()).convert("L"), dtype=np.uint16)
    return encoded(Image.fromarray(gray * 257 + 60), "PNG")


KINDS: dict[str, tuple[Callable[[], bytes], int]] = {
    "PNG": (lambda: encoded(Image.fromarray(picture()), "PNG"), 0),
    "BMP": (lambda: encoded(Image.fromarray(picture()), "BMP"), 0),
    "GIF": (lambda: encoded(Image.fromarray(picture()), "GIF"), 0),
    "palette PNG": (lambda: encoded(Image.fromarray(picture()).quantize(40), "PNG"), 0),
    "gray PNG": (lambda: encoded(Image.fromarray(picture()).convert("L"), "PNG"), 0),
    "gray PNG of 16 bits": (gray_16, 1),
    "PNG with transparency": (lambda: encoded(with_alpha(), "PNG"), 2),
    "JPEG": (lambda: encoded(Image.fromarray(picture()), "JPEG", quality=90, subsampling=0), 0),
    "JPEG with halved colours": (lambda: encoded(Image.fromarray(picture()), "JPEG", quality=90, subsampling=2), 0),
    "progressive JPEG": (lambda: encoded(Image.fromarray(picture()), "JPEG", quality=90, progressive=True), 0),
    "gray JPEG": (lambda: encoded(Image.fromarray(picture()).convert("L"), "JPEG"), 0),
    "turned JPEG": (turned_jpeg, 0),
    "PNG with a profile": (lambda: encoded(Image.fromarray(picture()), "PNG", icc_profile=wide_profile()), 2),
    "JPEG with a profile": (lambda: encoded(Image.fromarray(picture()), "JPEG", icc_profile=wide_profile()), 2),
    "lossless WebP": (lambda: encoded(Image.fromarray(picture()), "WEBP", lossless=True), 0),
    "WebP": (lambda: encoded(Image.fromarray(picture()), "WEBP", quality=90), 0),
    "CMYK JPEG": (lambda: encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95), 0),
    "AVIF": (lambda: encoded(Image.fromarray(picture()), "AVIF", quality=90), 0),
    "PNG with a gamma": (lambda: png_with(GAMMA), 0),
    "PNG with a gamma and primaries": (lambda: png_with(GAMMA, PRIMARIES), 0),
    "PNG with HDR colours": (lambda: png_with(HDR), 0),
    "PNG with sRGB and a gamma": (lambda: png_with((b"sRGB", b"\0"), GAMMA), 0),
    "PNG with a profile and all others": (lambda: png_with(GAMMA, PRIMARIES, HDR, profile=wide_profile()), 2),
    **{f"WebP of EXIF turn {turn}": (partial(turned_webp, turn), 0) for turn in range(1, 9)},
}
"""Kind of file -> how it is made, and the most that a level may differ by."""


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_python(tab: Page, kind: str) -> None:
    make, most = KINDS[kind]
    content = make()
    found = tab.evaluate(DECODE, base64.b64encode(content).decode())
    assert "error" not in found, found
    expected = np.asarray(decode_bytes(content, kind)).astype(int)
    pixels = np.array(found["data"]).reshape(found["height"], found["width"], 3)
    assert pixels.shape == expected.shape
    distance = np.abs(pixels - expected)
    print(kind, distance.max(), distance.mean())
    assert distance.max() <= most


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000"])
def test_kinds_that_the_browser_does_not_know_are_refused(tab: Page, kind: str) -> None:
    content = encoded(Image.fromarray(picture()), kind)
    found = tab.evaluate(DECODE, base64.b64encode(content).decode())
    assert "cannot be read" in found["error"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_what_python_calls_cut_is_refused(tab: Page, kind: str, kept: float) -> None:
    content = encoded(Image.fromarray(picture()), kind)
    short = content[: int(len(content) * kept)]
    with pytest.raises(DataError):
        decode_bytes(short, kind)
    assert "error" in tab.evaluate(DECODE, base64.b64encode(short).decode())


@pytest.mark.parametrize("place", [33, 37])
def test_damaged_chunks_get_plain_words(tab: Page, place: int) -> None:
    """Place 33: the length of a chunk goes far beyond the file. Place 37: its kind is one that is left out."""
    content = bytearray(png_with(HDR))
    content[place : place + 4] = b"\xff\xff\xff\xff" if place == 33 else b"gAMA"
    content = content if place == 33 else content[:40]
    found = tab.evaluate(DECODE, base64.b64encode(bytes(content)).decode())
    assert found["error"] == "This file cannot be read as an image."
