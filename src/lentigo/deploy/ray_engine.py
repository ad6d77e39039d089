"""The same answers from many machines: Ray Data runs `answer_batch` of the local engine over shards of the images.

Every machine must reach the images by the same paths, and have the model's folder in the same place.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lentigo.core.errors import MissingExtraError
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.engine import BATCH_SIZE, Outcome, answer_batch
from lentigo.deploy.exported import VariantName
from lentigo.deploy.inputs import Item


def predict_with_ray(
    model: Path,
    items: Sequence[Item],
    *,
    variant: VariantName,
    views: int,
    quality: bool,
    workers: int,
    batch_size: int = BATCH_SIZE,
    keep_pixels: bool = False,
) -> Generator[Outcome, None, None]:
    """What `predict_stream` gives, in the same order, from processes with a graph of one thread each.

    There are as many as the cluster has cores for, at most `workers`. Ray starts on this machine, or joins the
    cluster that the environment names (RAY_ADDRESS).

    Raises:
        MissingExtraError: without ray.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    settings = {"variant": variant, "views": views, "quality": quality, "keep_pixels": keep_pixels}
    return _stream(ray, {"model": str(model), **settings}, items, workers, batch_size)


def _stream(
    ray: Any, settings: dict[str, Any], items: Sequence[Item], workers: int, batch_size: int
) -> Generator[Outcome, None, None]:
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    rows = ray.data.from_items([{"item": pickle.dumps(item)} for item in items])
    answered = rows.map_batches(
        _Answerer,
        fn_constructor_kwargs={"folder": os.getcwd(), **settings},
        batch_size=batch_size,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=1,
    )
    for row in answered.iter_rows():
        yield pickle.loads(row["outcome"])


class _Answerer:
    """A worker's model, loaded once."""

    def __init__(
        self, folder: str, model: str, variant: VariantName, views: int, quality: bool, keep_pixels: bool
    ) -> None:
        os.chdir(folder)  # where the paths of the images and of the model begin; they stand in messages as given
        self._classifier = Classifier.load(model, variant=variant, views=views, threads=1, quality=quality)
        self._keep_pixels = keep_pixels

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        items = [pickle.loads(data) for data in batch["item"]]
        outcomes = answer_batch(self._classifier, items, keep_pixels=self._keep_pixels)
        return {"outcome": np.array([pickle.dumps(one) for one in outcomes], dtype=object)}
