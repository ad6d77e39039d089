"""What an exported colour model makes of gray images, beside a model that was trained on gray images alone.

The same images of val (or, with --split test, of test: one more look at it) are judged in colour and converted to gray
(ITU-R 601 luma, stacked three times); the predictions of the gray-only model are read. All answers are those of one
view without calibration, which changes no answer. Prints JSON and, with --out, writes it: scores with intervals and
paired differences, no image, no path.

    python benchmarks/gray_input.py ham10000.csv --model lentigo \\
        --gray-only results/predictions/strong-gray-strong-v2-s0.val.csv --out results/benchmark-gray-input.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from paired_scores import paired_scores
from PIL import Image
from recording import record

from lentigo.core.errors import ConfigError
from lentigo.core.predictions import Predictions
from lentigo.data.catalog import Catalog
from lentigo.data.images import load_image
from lentigo.data.sources import load_catalog
from lentigo.deploy.classifier import Classifier
from lentigo.training.rows import judged_rows

COLOUR, GRAY_INPUT, GRAY_ONLY = "colour", "gray input", "gray-only model"
PAIRS = ((COLOUR, GRAY_INPUT), (GRAY_ONLY, GRAY_INPUT), (GRAY_ONLY, COLOUR))
"""Differences are the second less the first."""
BATCH_SIZE = 32


def to_gray(image: Image.Image) -> Image.Image:
    """ITU-R 601 luma in all three channels."""
    return image.convert("L").convert("RGB")


def judge_both(classifier: Classifier, rows: Catalog) -> dict[str, Predictions]:
    """The model's predictions of the rows in colour and in gray."""
    return {COLOUR: judge(classifier, rows, lambda image: image), GRAY_INPUT: judge(classifier, rows, to_gray)}


def judge(classifier: Classifier, rows: Catalog, change: Callable[[Image.Image], Image.Image]) -> Predictions:
    """Logits of every row's image after `change`, in catalogue order."""
    parts = []
    for start in range(0, len(rows), BATCH_SIZE):
        images = [change(load_image(row.path, row.member)) for row in rows.rows[start : start + BATCH_SIZE]]
        parts.append(classifier.logits(np.stack([square(classifier, image) for image in images])))
    return Predictions(
        tuple(row.image_id for row in rows),
        tuple(row.lesion_id for row in rows),
        rows.labels,
        np.concatenate(parts),
    )


def square(classifier: Classifier, image: Image.Image) -> NDArray[np.uint8]:
    """(S, S, 3) uint8 as the model's contract makes it."""
    preprocess = classifier.spec.preprocess
    return preprocess.finished_square(preprocess.first_step(image))


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="HAM10000-style CSV with splits")
    parser.add_argument("--model", default="lentigo", help="name of the shipped model, or an export folder")
    parser.add_argument("--gray-only", type=Path, required=True, help="predictions of the gray model on the same rows")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.model, quality=False)
    if classifier.spec.preprocess.color_mode != "rgb":
        raise ConfigError(f"expected a colour model; found {arguments.model}, which sees gray", "Pass another --model.")
    rows = judged_rows(load_catalog(arguments.data), arguments.split)
    tables = {GRAY_ONLY: Predictions.from_csv(arguments.gray_only), **judge_both(classifier, rows)}
    result = {
        "command": f"python benchmarks/gray_input.py {arguments.data.name} --model {classifier.spec.name}"
        f" --gray-only {arguments.gray_only.name} --split {arguments.split}",
        "split": arguments.split,
        "model": {
            "name": classifier.spec.name,
            "variant": classifier.variant,
            "sha256": classifier.spec.variants[classifier.variant].sha256,
            "recipe": classifier.spec.provenance.get("recipe", ""),
        },
        "gray_only_predictions": arguments.gray_only.name,
        "gray": "ITU-R 601 luma of the decoded image, stacked three times",
        "synthetic": rows.synthetic,
        **paired_scores(tables, PAIRS),
    }
    record(result, arguments.out)


if __name__ == "__main__":
    main()
