"""Finished squares of images, as the exported graphs take them, and what a graph says of many images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.cache import ImageSource
from lentigo.data.preprocess import Preprocess
from lentigo.deploy.classifier import image_views
from lentigo.deploy.graph_session import GraphSession

Progress = Callable[[int, int], None]
_BATCH = 16


def finished_square(preprocess: Preprocess, first_step: Image.Image) -> NDArray[np.uint8]:
    """(S, S, 3) uint8 of the result of `Preprocess.first_step`; gray is stacked three times."""
    square = np.asarray(preprocess.remaining_steps(first_step))
    return np.stack([square] * 3, axis=-1) if square.ndim == 2 else square


def squares_of(images: ImageSource, rows: Iterable[int]) -> NDArray[np.uint8]:
    """(N, S, S, 3) uint8 of the chosen rows."""
    return np.stack([finished_square(images.preprocess, images[row]) for row in rows])


def graph_logits(session: GraphSession, squares: NDArray[np.uint8], *, views: int = 1) -> NDArray[np.float32]:
    """Mean logits (N, 7) of the views of squares (N, S, S, 3), as `Classifier.logits` gives them."""
    parts = [session.logits(np.ascontiguousarray(view)) for view in image_views(squares, views)]
    mean: NDArray[np.float32] = np.mean(parts, axis=0, dtype=np.float32)
    return mean


def source_logits(
    session: GraphSession,
    images: ImageSource,
    *,
    views: int = 1,
    progress: Progress = lambda done, total: None,
) -> NDArray[np.float32]:
    """Mean logits (N, 7) of every row, in catalogue order; a few images are held at a time."""
    parts = [np.empty((0, NUM_CLASSES), np.float32)]
    for start in range(0, len(images), _BATCH):
        rows = range(start, min(start + _BATCH, len(images)))
        parts.append(graph_logits(session, squares_of(images, rows), views=views))
        progress(rows.stop, len(images))
    return np.concatenate(parts)
