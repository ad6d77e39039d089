"""Which rows a recipe trains on and which are judged, and the evaluation contract it sets."""

from __future__ import annotations

from lentigo.core.config import Config
from lentigo.core.errors import DataError
from lentigo.data.catalog import Catalog
from lentigo.data.preprocess import Preprocess
from lentigo.models.network import Architecture


def training_rows(catalog: Catalog, config: Config) -> Catalog:
    """The rows that this recipe trains on; DataError where there are none."""
    splits = config.data.train_splits
    rows = catalog.split(*splits).filter(lambda row: config.data.include_repeats or row.primary)
    if not len(rows):
        raise DataError(
            f"no training rows: none of the {len(catalog)} images is in {' or '.join(splits)}",
            "Make a split with `lentigo data split DATA --out split.csv`, then train on split.csv.",
        )
    return rows


def judged_rows(catalog: Catalog, split: str) -> Catalog:
    """The rows that validation and evaluation judge: one image per lesion of a split, its primary one."""
    return catalog.split(split).filter(lambda row: row.primary)


def build_preprocess(config: Config, architecture: Architecture) -> Preprocess:
    """The evaluation contract: the recipe's section and the architecture's normalisation."""
    return Preprocess(**config.preprocess.model_dump(), mean=architecture.mean, std=architecture.std)
