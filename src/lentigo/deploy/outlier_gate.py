"""The gate for images of another kind: statistics of the training images into the graphs, limits from val.

`lentigo.evaluation.outliers` explains the distance. The statistics are those of the float graph; each variant has its
own limit, since rounding moves features a little.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import DataError
from lentigo.data.cache import ImageSource, open_images
from lentigo.deploy.export_source import ExportSource
from lentigo.deploy.exported import OutlierLimit, VariantFiles, VariantName
from lentigo.deploy.graph_session import GraphSession
from lentigo.deploy.int8 import Progress
from lentigo.deploy.outlier_graph import with_outlier_distance
from lentigo.deploy.squares import squares_of
from lentigo.evaluation.outliers import FeatureStatistics, fit_gate, fit_statistics
from lentigo.evaluation.robustness import stratified_subset
from lentigo.training.rows import training_rows

TRAINING_IMAGES = 3000
"""The most that are looked at, as in `lentigo.evaluation.measure_outliers`; about 12 ms each on one core."""
_BATCH = 16


Graphs = dict[VariantName, bytes]


def add_outlier_gates(
    source: ExportSource, graphs: Graphs, progress: Progress
) -> tuple[Graphs, dict[VariantName, OutlierLimit]]:
    """The graphs with the output `outlier_distance`, and their limits.

    The statistics are fitted on training images by the first graph, each limit on val. Where too few training images
    can be had the graphs come back as they are, without limits, and `progress` is told why: no export fails for that.
    """
    try:
        statistics = _fit_statistics(source, next(iter(graphs.items())), progress)
    except DataError as error:
        progress(f"no gate for images of another kind: {error.message}", 0, 1)
        return graphs, {}
    gated = {name: with_outlier_distance(graph, statistics) for name, graph in graphs.items()}
    return gated, {name: _fit_limit(graph, name, source.val, progress) for name, graph in gated.items()}


def _fit_statistics(source: ExportSource, graph: tuple[VariantName, bytes], progress: Progress) -> FeatureStatistics:
    """Those of a sample of the training images, by the means over space of one graph's feature maps."""
    name, content = graph
    rows = stratified_subset(training_rows(source.catalog, source.config), TRAINING_IMAGES)
    images = open_images(rows, source.spec.preprocess, source.config.data.model_copy(update={"cache": "none"}))
    session = GraphSession.open(content, VariantFiles[name])
    features = [
        session.feature_maps(squares).mean(axis=(2, 3))
        for squares in _batches(images, "features of training images", progress)
    ]
    return fit_statistics(np.concatenate(features), rows.labels)


def _fit_limit(graph: bytes, name: VariantName, val: ImageSource, progress: Progress) -> OutlierLimit:
    session = GraphSession.open(graph, VariantFiles[name])
    step = f"{name}, how far val is from the training images"
    distances = np.concatenate([session.outlier_distances(squares) for squares in _batches(val, step, progress)])
    gate = fit_gate("mahalanobis", distances.astype(np.float64))
    beyond = np.sort(distances[distances > gate.threshold]).tolist()
    return OutlierLimit(threshold=gate.threshold, pass_rate=gate.pass_rate, n=gate.n, beyond=tuple(beyond))


def _batches(images: ImageSource, what: str, progress: Progress) -> Iterator[NDArray[np.uint8]]:
    """Finished squares, a few images at a time."""
    for start in range(0, len(images), _BATCH):
        rows = range(start, min(start + _BATCH, len(images)))
        yield squares_of(images, rows)
        progress(what, rows.stop, len(images))
