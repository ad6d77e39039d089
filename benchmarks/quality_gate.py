"""How often each check of the photo quality gate fires: on training images (wanted: rarely) and on spoilt ones.

The limits of `lentigo.data.quality` were set on a sample of these training images; the images here are another draw
where the seed differs. Prints JSON and, with --out, writes it: counts with Wilson intervals, no image, no path.

    python benchmarks/quality_gate.py ham10000.csv --photographs FOLDER --out results/benchmark-quality-gate.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from recording import record

from lentigo.data.catalog import Row
from lentigo.data.images import load_image
from lentigo.data.quality import LIMITS, check_quality
from lentigo.data.sources import load_catalog
from lentigo.data.unlabelled import list_photographs
from lentigo.evaluation.intervals import wilson_estimate

SKIN_SHARE = 0.3
"""Side of the corner that is taken for skin without a lesion."""


def blurred(share: float) -> Callable[[Image.Image], Image.Image]:
    """Gaussian blur whose standard deviation is a share of the shorter side."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


def scaled(*factors: float) -> Callable[[Image.Image], Image.Image]:
    """Every channel times its factor, clipped."""
    return lambda image: Image.fromarray(np.clip(np.asarray(image, dtype=float) * factors, 0, 255).astype(np.uint8))


def skin(image: Image.Image) -> Image.Image:
    """The plainest corner at the image's size; some still hold a part of the lesion."""
    width, height = (round(SKIN_SHARE * side) for side in image.size)
    margin = round(0.05 * min(image.size))
    corners = [
        image.crop((left, top, left + width, top + height))
        for left in (margin, image.width - width - margin)
        for top in (margin, image.height - height - margin)
    ]
    plainest = min(corners, key=lambda corner: float(np.asarray(corner, dtype=float).std(axis=(0, 1)).sum()))
    return plainest.resize(image.size, Image.Resampling.BILINEAR)


SPOILT: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blur_0.5_percent_of_the_side": blurred(0.005),
    "blur_1_percent_of_the_side": blurred(0.01),
    "blur_1.5_percent_of_the_side": blurred(0.015),
    "dark_0.4": scaled(0.4),
    "bright_1.8": scaled(1.8),
    "blue_cast": scaled(0.6, 1.0, 1.5),
    "yellow_cast": scaled(1.0, 1.0, 0.5),
    "skin_alone": skin,
    "gray": lambda image: image.convert("L"),
}


def rates(pictures: list[Image.Image]) -> dict[str, Any]:
    """Share of pictures with any flag, and with each flag that fires at all."""
    found = [check_quality(picture) for picture in pictures]
    counts = {"any": sum(not one.good for one in found)}
    counts |= {name: sum(name in one.flags for one in found) for name in LIMITS}
    return {
        "n": len(found),
        "flagged": {name: estimate(count, len(found)) for name, count in counts.items() if count or name == "any"},
    }


def estimate(count: int, n: int) -> dict[str, float | None]:
    """Share and its 95% Wilson interval."""
    share = wilson_estimate(count, n)
    numbers = {"share": share.value, "ci_low": share.ci_low, "ci_high": share.ci_high}
    return {name: None if value is None else round(value, 4) for name, value in numbers.items()}


def sample(rows: list[Row], most: int, generator: np.random.Generator) -> list[Image.Image]:
    """Decoded images of some rows."""
    return [load_image(rows[i].path, rows[i].member) for i in generator.permutation(len(rows))[:most]]


def measure(data: Path, photographs: Path | None, most: int, seed: int) -> dict[str, Any]:
    """Rates on training images, small ones, spoilt ones and photographs of other things."""
    catalog, generator = load_catalog(data), np.random.default_rng(seed)
    train = [row for row in catalog if row.split == "train"]
    pictures = sample([row for row in train if row.primary], most, generator)
    start_s = time.process_time()
    results = {"training_images": rates(pictures)}
    cpu_ms = 1000 * (time.process_time() - start_s) / len(pictures)
    repeats = [row for row in train if not row.primary]
    if repeats:
        results["repeat_photographs"] = rates(sample(repeats, most, generator))
    results |= {name: rates([spoil(picture) for picture in pictures]) for name, spoil in SPOILT.items()}
    if photographs is not None:
        results["photographs_of_other_things"] = rates(sample(list_photographs([photographs])[0], most, generator))
    limits = {name: {"low": one.low, "high": one.high} for name, one in LIMITS.items()}
    return {"seed": seed, "cpu_ms_an_image": round(cpu_ms, 1), "limits": limits, "results": results}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="HAM10000-style CSV with splits")
    parser.add_argument("--photographs", type=Path, help="folder of pictures of anything but skin")
    parser.add_argument("--most", type=int, default=500, help="images of each kind")
    parser.add_argument("--seed", type=int, default=1, help="of the draw of images")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    record(measure(arguments.data, arguments.photographs, arguments.most, arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
