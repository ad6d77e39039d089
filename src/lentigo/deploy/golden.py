"""Golden inputs: twenty raw image files and the logits that every runtime must give for them.

Wrong preprocessing is the usual fault of a model that was moved elsewhere, and it shows in no crash. The files differ
in all that a decoder may get wrong: turns, gray, palettes, transparency, 16 bits, CMYK, colour profiles, aspect ratios.
They are drawings. Each has the digest of its finished square too, which tells wrong pixels from a wrong network.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from pydantic import BaseModel, ConfigDict, ValidationError

from lentigo.core.errors import CheckpointError, ExportError, first_five
from lentigo.core.files import write_json_atomic
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.images import decode_bytes
from lentigo.data.preprocess import Preprocess
from lentigo.data.synthetic import draw_lesion
from lentigo.deploy.exported import PlainName, VariantName

GOLDEN_FILE = "golden.json"
TOLERANCE = 1e-4
"""Largest difference of a logit, for runtimes that compute in float32."""
_ORIENTATION = 0x0112

Pixels = NDArray[np.uint8]
Predict = Callable[[Path], NDArray[np.float32]]
"""An image file to its logits (7,), of one view."""


class GoldenImage(BaseModel):
    """One file. `pixels_sha256`: of its finished square (S, S, 3) uint8, row by row; logits: variant -> 7 numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: PlainName
    sha256: str
    pixels_sha256: str
    logits: dict[VariantName, tuple[float, ...]]


class Golden(BaseModel):
    """golden.json: the files beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    tolerance: float = TOLERANCE
    images: tuple[GoldenImage, ...]

    @classmethod
    def load(cls, folder: Path) -> Golden:
        """Read golden.json of a folder.

        Raises:
            CheckpointError: where it is missing or damaged.
        """
        path = folder / GOLDEN_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise CheckpointError(f"no golden inputs at {path}", "Export the run again.") from None
        except ValidationError as error:
            raise CheckpointError(
                f"{path} is damaged: {error.error_count()} entries are missing or wrong", "Export the run again."
            ) from None


def draw_golden(seed: int = 0) -> dict[str, bytes]:
    """File name -> content of the twenty files; the same seed and version of Pillow give the same bytes."""
    files: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, **options: object) -> None:
        stream = io.BytesIO()
        image_format = "JPEG" if name.endswith(".jpg") else "PNG"
        image.save(stream, image_format, **({"quality": 88} if image_format == "JPEG" else {}), **options)
        files[f"{len(files) + 1:02d}-{name}"] = stream.getvalue()

    def picture(width: int, height: int) -> Image.Image:
        """Another lesion each time, cut out of the middle of its square."""
        number, side = len(files), max(width, height, 32)
        drawn = draw_lesion(CLASS_CODES[number % len(CLASS_CODES)], lesion_seed=seed * 100 + number, size_px=side)
        left, top = (side - width) // 2, (side - height) // 2
        return Image.fromarray(np.ascontiguousarray(drawn[top : top + height, left : left + width]))

    add("plain.jpg", picture(450, 338))
    add("portrait.jpg", picture(200, 300))
    add("wide.jpg", picture(400, 90))
    add("smaller-than-the-input.jpg", picture(40, 31))
    add("progressive.jpg", picture(300, 225), progressive=True)
    add("full-colour-resolution.jpg", picture(240, 180), subsampling=0)
    add("low-quality.jpg", picture(320, 240), optimize=True, qtables="web_low")
    add("gray.jpg", picture(240, 180).convert("L"))
    add("cmyk.jpg", picture(160, 120).convert("CMYK"))
    add("turned-by-exif.jpg", picture(240, 160), exif=_turned(6))
    add("turned-back-by-exif.jpg", picture(160, 240), exif=_turned(8))
    add("mirrored-by-exif.jpg", picture(220, 160), exif=_turned(2))
    add("colour-profile.jpg", picture(200, 150), icc_profile=_swapped_profile())
    add("plain.png", picture(120, 90))
    add("transparent.png", _with_alpha(picture(110, 80)))
    add("gray.png", picture(120, 120).convert("L"))
    add("gray-transparent.png", _with_alpha(picture(100, 80)).convert("LA"))
    add("palette.png", picture(120, 90).quantize(64))
    add("palette-transparent.png", picture(120, 100).quantize(32), transparency=3)
    add("16-bit.png", _in_16_bits(picture(90, 70)))
    return files


def write_golden(
    folder: Path,
    preprocess: Preprocess,
    predict: Mapping[VariantName, Callable[[Pixels], NDArray[np.float32]]],
    *,
    seed: int = 0,
) -> Golden:
    """Write the files and golden.json; `predict` gives the logits (N, 7) of squares (N, S, S, 3) for each variant."""
    files = draw_golden(seed)
    squares = np.stack([golden_square(preprocess, data, name) for name, data in files.items()])
    logits = {variant: run(squares) for variant, run in predict.items()}
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for row, (name, data) in enumerate(files.items()):
        (folder / name).write_bytes(data)
        images.append(
            GoldenImage(
                file=name,
                sha256=hashlib.sha256(data).hexdigest(),
                pixels_sha256=hashlib.sha256(squares[row].tobytes()).hexdigest(),
                logits={variant: tuple(found[row].tolist()) for variant, found in logits.items()},
            )
        )
    golden = Golden(seed=seed, images=tuple(images))
    write_json_atomic(folder / GOLDEN_FILE, golden.model_dump(mode="json"))
    return golden


def golden_square(preprocess: Preprocess, data: bytes, name: str) -> Pixels:
    """The finished square (S, S, 3) uint8 of an image file's bytes."""
    return preprocess.finished_square(preprocess.first_step(decode_bytes(data, name)))


def check_golden(
    folder: Path, predict: Predict, *, variant: VariantName = "fp32", tolerance: float | None = None
) -> float:
    """The largest difference of a logit between `predict` and golden.json over all files; None: its own tolerance.

    int8 rounds: another processor may end one step elsewhere, so give it a tolerance of its own.

    Raises:
        CheckpointError: where golden.json or a file is missing or changed, or lacks the variant.
        ExportError: where a difference is above the tolerance, or a logit is not finite.
    """
    golden = Golden.load(folder)
    lacking = [one.file for one in golden.images if variant not in one.logits]
    changed = [one.file for one in golden.images if _digest(folder / one.file) != one.sha256]
    if lacking or changed:
        found = f"no logits of {variant}" if lacking else f"missing or changed: {first_five(changed)}"
        raise CheckpointError(f"golden inputs in {folder}: {found}", "Export the run again, with that variant.")
    limit = golden.tolerance if tolerance is None else tolerance
    differences = {
        one.file: float(np.abs(np.asarray(predict(folder / one.file)).reshape(-1) - one.logits[variant]).max())
        for one in golden.images
    }
    wrong = [f"{file} {difference:.2g}" for file, difference in differences.items() if not difference <= limit]
    if wrong:
        raise ExportError(
            f"expected the logits of {len(differences)} golden inputs within {limit:g}; found {first_five(wrong)}",
            "Compare the finished squares first: pixels_sha256 in golden.json is the digest of their bytes.",
        )
    return max(differences.values())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return exif


def _with_alpha(image: Image.Image) -> Image.Image:
    """The left half fades out towards the border."""
    alpha = np.minimum(255, np.arange(image.width) * 510 // image.width).astype(np.uint8)
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(np.broadcast_to(alpha, (image.height, image.width)).copy()))
    return image


def _in_16_bits(image: Image.Image) -> Image.Image:
    """Gray with low bytes that are not zero."""
    gray = np.asarray(image.convert("L"), dtype=np.uint16)
    return Image.fromarray(gray * np.uint16(256) + np.uint16(37))


def _swapped_profile() -> bytes:
    """sRGB with red and green exchanged: whoever ignores the profile gets other colours."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = (2000).to_bytes(2) + (1).to_bytes(2) * 2 + bytes(6)  # the time of making, or no two are alike
    red, green = profile.index(b"rXYZ", 128), profile.index(b"gXYZ", 128)
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    # Under its own name it would be taken for sRGB, and be left aside.
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap")
