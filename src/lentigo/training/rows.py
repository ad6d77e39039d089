"""Which rows a recipe trains on and which are judged, and the evaluation contract it sets."""

from __future__ import annotations

from lentigo.core.config import Config
from lentigo.core.errors import DataError, first_five
from lentigo.data.catalog import Catalog
from lentigo.data.preprocess import Preprocess
from lentigo.models.network import Architecture


def training_rows(catalog: Catalog, config: Config) -> Catalog:
    """The rows that this recipe trains on; DataError where there are none, or an excluded image is none of them."""
    splits, excluded = config.data.train_splits, set(config.data.exclude_images)
    in_splits = catalog.split(*splits)
    unknown = sorted(excluded - {row.image_id for row in in_splits.rows})
    if unknown:
        raise DataError(
            f"data.exclude_images names {first_five(unknown)}, not among the {len(in_splits)} images of "
            f"{' and '.join(splits)}",
            "Name images of the training splits by their image_id, or drop the setting.",
        )
    rows = in_splits.filter(lambda row: (config.data.include_repeats or row.primary) and row.image_id not in excluded)
    if not len(in_splits):
        raise DataError(
            f"no training rows: none of the {len(catalog)} images is in {' or '.join(splits)}",
            "Make a split with `lentigo data split DATA --out split.csv`, then train on split.csv.",
        )
    if not len(rows):
        raise DataError(
            f"no training rows: of the {len(in_splits)} images in {' or '.join(splits)} {len(excluded)} are excluded "
            "by name (data.exclude_images), and the others are not primary",
            "Exclude fewer, or pass --set data.include_repeats=true.",
        )
    return rows


def judged_rows(catalog: Catalog, split: str) -> Catalog:
    """The rows that validation and evaluation judge: one image per lesion of a split, its primary one."""
    return catalog.split(split).filter(lambda row: row.primary)


def build_preprocess(config: Config, architecture: Architecture) -> Preprocess:
    """The evaluation contract: the recipe's section and the architecture's normalisation."""
    return Preprocess(**config.preprocess.model_dump(), mean=architecture.mean, std=architecture.std)
