"""Dermoscopy-like drawings of seven kinds of lesion: the data of `lentigo demo` and of the tests.

They teach a network nothing about patients. What they are good for: running the whole program anywhere,
without a download, on data that behaves like the real thing (seven unbalanced classes, several views per
lesion, nuisance of every kind, some honest ambiguity).

Everything follows from the seed: one machine draws bit-identical arrays again and again. `synthetic_drawing`
holds the anatomy of the seven classes (drawn on `synthetic_canvas`), `synthetic_camera` the skin and the
camera; this module is the public face and writes data sets.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lentigo.core.errors import DataError, first_five
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.synthetic_camera import Skin, photograph
from lentigo.data.synthetic_drawing import draw_anatomy

SYNTHETIC_NOTICE = (
    "These images are synthetic: drawings made by the Lentigo program, not photographs of patients, "
    "and of no diagnostic value."
)
SMALLEST_SIZE_PX, LARGEST_SIZE_PX = 32, 2048
# HAM10000's class shares, softened so that a few hundred images hold enough of every class.
DEFAULT_CLASS_SHARES: Mapping[str, float] = {
    "nv": 0.40, "mel": 0.14, "bkl": 0.14, "bcc": 0.10, "akiec": 0.08, "vasc": 0.07, "df": 0.07,
}  # fmt: skip
GUARANTEED_LESIONS_PER_CLASS = 2
MOST_VIEWS_PER_LESION = 6
CSV_COLUMNS = ("image_id", "lesion_id", "dx", "dx_type", "age", "sex", "localization", "primary", "file")
LOCALIZATIONS = (
    "abdomen", "back", "chest", "ear", "face", "foot", "hand", "lower extremity",
    "neck", "scalp", "trunk", "upper extremity",
)  # fmt: skip
# Separate streams of random numbers, so that a change of the skin does not redraw the lesion.
_ANATOMY_STREAM, _SKIN_STREAM, _VIEW_STREAM, _PLAN_STREAM, _LESION_STREAM = range(5)


def _stream(*key: int) -> np.random.Generator:
    # SFC64: twice as fast as the default at the bulk bytes of the sensor noise.
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))


def draw_lesion(class_code: str, *, lesion_seed: int, view: int = 0, size_px: int = 300) -> NDArray[np.uint8]:
    """Draw one view of one synthetic lesion: (size_px, size_px, 3) uint8 RGB.

    The anatomy and the skin follow from class_code and lesion_seed; rotation, scale, flip, light and
    artefacts also from `view`.

    Raises:
        DataError: unknown class, negative seed or view, or a size outside 32..2048 pixels.
    """
    if class_code not in CLASS_CODES:
        raise DataError(f"cannot draw class {class_code!r}", f"Use one of {', '.join(CLASS_CODES)}.")
    if not SMALLEST_SIZE_PX <= size_px <= LARGEST_SIZE_PX:
        raise DataError(
            f"synthetic images of {size_px} px were asked for",
            f"Choose a size from {SMALLEST_SIZE_PX} to {LARGEST_SIZE_PX} px.",
        )
    if lesion_seed < 0 or view < 0:
        raise DataError(f"lesion_seed {lesion_seed}, view {view}: negative", "Use seeds and views from 0 up.")
    key = (lesion_seed, int.from_bytes(class_code.encode(), "big"))
    canvas = draw_anatomy(class_code, _stream(*key, _ANATOMY_STREAM), size_px)
    skin = Skin.draw(_stream(*key, _SKIN_STREAM))
    return photograph(canvas, skin, _stream(*key, _VIEW_STREAM, view), size_px)


@dataclass(frozen=True)
class _PlannedLesion:
    lesion_id: str
    class_code: str
    lesion_seed: int
    num_views: int
    age_years: str
    sex: str
    localization: str


def _plan_lesions(shares: Mapping[str, float], seed: int, views_per_lesion: float) -> Iterator[_PlannedLesion]:
    """Endless sequence of lesions; a longer data set begins with the images of a shorter one.

    Two lesions of every class come first, in random order and with at most two views each, so that 4 images
    per class suffice to hold them. Then a class is drawn with a probability that follows how many images it
    still lacks.
    """
    plan = _stream(seed, _PLAN_STREAM)
    codes = [code for code in CLASS_CODES if shares[code] > 0]
    wanted = np.array([shares[code] for code in codes])
    counts = np.zeros(len(codes))
    first = plan.permutation(np.repeat(np.arange(len(codes)), GUARANTEED_LESIONS_PER_CLASS)).tolist()
    number = 0
    while True:
        lesion = _stream(seed, _LESION_STREAM, number)
        guaranteed = number < len(first)
        lack = np.maximum(wanted * (counts.sum() + 5.0 * len(codes)) - counts, 0.0)
        choice = first[number] if guaranteed else int(plan.choice(len(codes), p=lack / lack.sum()))
        num_views = min(1 + int(plan.poisson(views_per_lesion - 1.0)), 2 if guaranteed else MOST_VIEWS_PER_LESION)
        counts[choice] += num_views
        number += 1
        age = int(np.clip(5 * round(lesion.normal(52.0, 17.0) / 5), 5, 85))
        yield _PlannedLesion(
            lesion_id=f"SYNLES_{number:07d}",
            class_code=codes[choice],
            lesion_seed=int(lesion.integers(2**62)),
            num_views=num_views,
            age_years="" if lesion.random() < 0.03 else f"{age:.1f}",
            sex="" if lesion.random() < 0.02 else str(lesion.choice(["female", "male"])),
            localization="" if lesion.random() < 0.03 else str(lesion.choice(LOCALIZATIONS)),
        )


def _checked_shares(class_shares: Mapping[str, float] | None) -> dict[str, float]:
    """Shares of all seven classes, summing to 1; classes that are not named get none."""
    given = DEFAULT_CLASS_SHARES if class_shares is None else class_shares
    wrong = [name for name, share in given.items() if name not in CLASS_CODES or not 0.0 <= share < float("inf")]
    total = sum(share for name, share in given.items() if name not in wrong)
    if wrong or total <= 0.0:
        raise DataError(
            f"class shares cannot be used: {first_five(wrong) or 'all are 0'}",
            f"Give numbers from 0 up, not all 0, for the classes {', '.join(CLASS_CODES)}.",
        )
    return {code: given.get(code, 0.0) / total for code in CLASS_CODES}


def _check_request(folder: Path, num_images: int, seed: int, views_per_lesion: float, jpeg_quality: int) -> None:
    """Refuse what cannot be written, before anything is drawn."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} exists and is not an empty folder", "Name a new folder; nothing is ever overwritten."
        )
    if num_images < 1 or seed < 0:
        raise DataError(
            f"{num_images} images with seed {seed} were asked for",
            "Ask for 1 image or more, with a seed from 0 up.",
        )
    if not 1.0 <= views_per_lesion <= MOST_VIEWS_PER_LESION:
        raise DataError(
            f"{views_per_lesion} views per lesion were asked for",
            f"Choose a mean from 1 to {MOST_VIEWS_PER_LESION} views.",
        )
    if not 1 <= jpeg_quality <= 100:
        raise DataError(f"JPEG quality {jpeg_quality} was asked for", "Choose a quality from 1 to 100.")


def _write_images(
    folder: Path, lesions: Iterator[_PlannedLesion], num_images: int, size_px: int, jpeg_quality: int
) -> str:
    """Draw the first num_images images into folder/images; returns the text of their CSV table."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    number = 0
    for lesion in lesions:
        for view in range(lesion.num_views):
            number += 1
            image_id = f"SYNTH_{number:07d}"
            pixels = draw_lesion(lesion.class_code, lesion_seed=lesion.lesion_seed, view=view, size_px=size_px)
            file = f"images/{image_id}.jpg"
            Image.fromarray(pixels).save(folder / file, "JPEG", quality=jpeg_quality, comment=SYNTHETIC_NOTICE.encode())
            patient = (lesion.age_years, lesion.sex, lesion.localization)
            dx = (lesion.class_code, "synthetic")
            writer.writerow((image_id, lesion.lesion_id, *dx, *patient, int(view == 0), file))
            if number == num_images:
                return table.getvalue()
    raise AssertionError("the plan of lesions is endless")


def write_synthetic(
    folder: Path,
    *,
    num_images: int = 1000,
    seed: int = 0,
    size_px: int = 300,
    class_shares: Mapping[str, float] | None = None,
    views_per_lesion: float = 1.35,
    jpeg_quality: int = 90,
) -> Path:
    """Write a synthetic data set and return the path of its CSV.

    The folder holds images/*.jpg, synthetic.csv (HAM10000's columns) and README.txt; it appears complete or
    not at all. Every class with a share gets two lesions or more from 28 images on. Age, sex and site are
    drawn without regard to the class. `views_per_lesion` is the mean number of images of one lesion (1 to 6).

    Raises:
        DataError: the folder exists and is not empty, or a number or class is out of range.
    """
    folder = Path(folder)
    _check_request(folder, num_images, seed, views_per_lesion, jpeg_quality)
    lesions = _plan_lesions(_checked_shares(class_shares), seed, views_per_lesion)
    partial = folder.absolute().with_name(f".{folder.name}.partial-{os.getpid()}")
    (partial / "images").mkdir(parents=True)
    try:
        table = _write_images(partial, lesions, num_images, size_px, jpeg_quality)
        (partial / "synthetic.csv").write_text(table, encoding="utf-8", newline="")
        (partial / "README.txt").write_text(
            f"{SYNTHETIC_NOTICE}\n\nseed {seed}, {num_images} images\n", encoding="utf-8"
        )
        if folder.exists():
            folder.rmdir()  # it was empty; fails, as it should, if somebody has filled it meanwhile
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder / "synthetic.csv"
