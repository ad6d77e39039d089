"""A look at the data before training: what the network is shown, and how many of each class there are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from lentigo.core.config import Config
from lentigo.core.seeding import derive_seed
from lentigo.core.taxonomy import CLASSES
from lentigo.data.augment import Augment
from lentigo.data.catalog import Catalog
from lentigo.data.images import load_image
from lentigo.data.preprocess import Preprocess
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.evaluation.figures import class_balance, image_grid

GRID = 4


def show_data(catalog: Catalog, config: Config, folder: Path, kind: Literal["png", "svg"], seed: int) -> list[Path]:
    """Write class_balance, images and images_augmented below `folder`; returns the three paths.

    The grids hold the same 16 training images, un-normalised, at the network's input size.
    """
    preprocess = Preprocess(**config.preprocess.model_dump())
    augment = Augment(config.augment)
    train = catalog.split(*config.data.train_splits)
    rows = (train if len(train) else catalog).rows
    generator = np.random.default_rng(derive_seed(seed, "show"))
    chosen = generator.choice(len(rows), size=min(GRID * GRID, len(rows)), replace=False)
    first_steps = [preprocess.first_step(load_image(rows[i].path, rows[i].member)) for i in chosen]
    titles = [CLASSES[rows[i].label].label_text for i in chosen]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "augment"))
        augmented = [augment(image) for image in first_steps]
    note = SYNTHETIC_NOTICE if catalog.synthetic else ""
    mode = f"{preprocess.color_mode}, {preprocess.input_size_px} px"
    return [
        class_balance(catalog, folder / f"class_balance.{kind}", note=note),
        image_grid(
            [preprocess.remaining_steps(image) for image in first_steps],
            titles,
            folder / f"images.{kind}",
            heading=f"Training images as prepared ({mode})",
            note=note,
        ),
        image_grid(
            [preprocess.remaining_steps(image) for image in augmented],
            titles,
            folder / f"images_augmented.{kind}",
            heading=f"The same images after augmentation ({config.about.name})",
            note=note,
        ),
    ]
