"""Finished squares of images, as the exported graphs take them, and what a graph says of many images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.cache import ImageSource
from lentigo.deploy.graph_session import GraphSession

Progress = Callable[[int, int], None]
_BATCH = 16


def squares_of(images: ImageSource, rows: Iterable[int]) -> NDArray[np.uint8]:
    """(N, S, S, 3) uint8 of the chosen rows."""
    return np.stack([images.preprocess.finished_square(images[row]) for row in rows])


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
        parts.append(session.logits(squares_of(images, rows), views=views))
        progress(rows.stop, len(images))
    return np.concatenate(parts)
