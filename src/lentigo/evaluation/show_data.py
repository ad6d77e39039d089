"""A look at the data before training: what the network is shown, and how many of each class there are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from lentigo.core.config import Config
from lentigo.core.seeding import derive_seed
from lentigo.core.taxonomy import CLASSES
from lentigo.data.augment import Augment
from lentigo.data.catalog import Catalog
from lentigo.data.images import load_image
from lentigo.data.preprocess import Preprocess
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.evaluation.figures import class_balance, image_grid
from lentigo.training.rows import training_rows

GRID = 4
Kind = Literal["png", "svg", "jpg"]


def show_data(catalog: Catalog, config: Config, folder: Path, kind: Kind, seed: int) -> list[Path]:
    """Write class_balance, images and images_augmented below `folder`; returns the three paths."""
    grids = draw_grids(catalog, config, folder, kind, seed)  # first: it meets the images that cannot be read
    note = SYNTHETIC_NOTICE if catalog.synthetic else ""
    return [class_balance(catalog, folder / f"class_balance.{kind}", note=note), *grids]


def draw_grids(catalog: Catalog, config: Config, folder: Path, kind: Kind, seed: int) -> tuple[Path, Path]:
    """The same 16 images, un-normalised, at the network's input size: as prepared, and after augmentation.

    They are training images; only a catalogue without any split gives them from all of its rows.
    """
    preprocess = Preprocess(**config.preprocess.model_dump())
    augment = Augment(config.augment)
    is_split = any(row.split for row in catalog)
    rows = (training_rows(catalog, config) if is_split else catalog).rows
    what = "Training images" if is_split else "Images"
    generator = np.random.default_rng(derive_seed(seed, "show"))
    chosen = generator.choice(len(rows), size=min(GRID * GRID, len(rows)), replace=False)
    first_steps = [preprocess.first_step(load_image(rows[i].path, rows[i].member)) for i in chosen]
    titles = [CLASSES[rows[i].label].label_text for i in chosen]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "augment"))
        augmented = [augment(image) for image in first_steps]

    def draw(images: list[Image.Image], name: str, heading: str) -> Path:
        note = SYNTHETIC_NOTICE if catalog.synthetic else ""
        finished = [preprocess.remaining_steps(image) for image in images]
        return image_grid(finished, titles, folder / f"{name}.{kind}", heading=heading, note=note)

    mode = f"{preprocess.color_mode}, {preprocess.input_size_px} px"
    return (
        draw(first_steps, "images", f"{what} as prepared ({mode})"),
        draw(augmented, "images_augmented", f"The same after augmentation ({config.about.name})"),
    )
