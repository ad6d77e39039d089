"""The graphs of an export: each made, judged on val beside the network, and through its gate or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from lentigo.core.errors import ExportError
from lentigo.core.predictions import Predictions
from lentigo.data.cache import open_images
from lentigo.deploy.export_source import ExportSource
from lentigo.deploy.exported import OutlierLimit, VariantFiles, VariantName
from lentigo.deploy.golden import draw_golden, golden_square
from lentigo.deploy.graph_session import GraphSession
from lentigo.deploy.half_weights import halve_weights
from lentigo.deploy.int8 import Progress, find_int8
from lentigo.deploy.onnx_graph import PixelGraph, export_graph
from lentigo.deploy.parity import (
    Int8Record,
    VariantParity,
    judge_variant,
    max_difference,
    require_fp32,
    rounding_failures,
)
from lentigo.deploy.quantize import CALIBRATION_IMAGES
from lentigo.deploy.squares import source_logits, squares_of
from lentigo.evaluation.robustness import stratified_subset
from lentigo.training.rows import training_rows

GOLDEN_SEED = 0


@dataclass
class Made:
    """What has been made so far: graph of each variant, what val says of it, its tables by number of views, and the
    limits of those that tell images of another kind."""

    graphs: dict[VariantName, bytes]
    judged: list[VariantParity]
    tables: dict[VariantName, dict[int, Predictions]]
    int8: Int8Record | None = None
    limits: Mapping[VariantName, OutlierLimit] = field(default_factory=dict)


def make_fp32(source: ExportSource, resamples: int, progress: Progress) -> Made:
    """The float graph, through its gate, judged with one view and with those of the run."""
    progress("ONNX graph", 0, 1)
    graph = export_graph(source.network, source.spec)
    session = GraphSession.open(graph, VariantFiles["fp32"])
    tables: dict[int, Predictions] = {}
    judged = []
    for views in sorted({1, source.spec.views}):
        step = partial(progress, f"fp32 on val, {views} view{'s' if views > 1 else ''}")
        logits = source_logits(session, source.val, views=views, progress=step)
        if views == 1:
            require_fp32(max_difference(logits, source.torch_logits), len(logits), "val images")
        tables[views] = source.table(logits)
        judged.append(
            judge_variant(
                "fp32",
                tables[views],
                views=views,
                size_bytes=len(graph),
                torch_logits=source.torch_logits if views == 1 else None,
                resamples=resamples,
            )
        )
    return Made({"fp32": graph}, judged, {"fp32": tables})


def check_graph(source: ExportSource, graph: bytes) -> float:
    """The gate of fp32 on the golden inputs, and the largest difference there."""
    squares, expected = golden_logits(source)
    difference = max_difference(GraphSession.open(graph, VariantFiles["fp32"]).logits(squares), expected)
    require_fp32(difference, len(squares), "golden inputs")
    return difference


def golden_logits(source: ExportSource) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The finished squares (N, S, S, 3) of the golden inputs, and torch's logits (N, 7) of them."""
    files = draw_golden(GOLDEN_SEED)
    squares = np.stack([golden_square(source.spec.preprocess, data, name) for name, data in files.items()])
    with torch.inference_mode():
        return squares, PixelGraph(source.network, source.spec)(torch.from_numpy(squares))[0].numpy()


def add_fp16(source: ExportSource, made: Made, resamples: int, progress: Progress) -> None:
    """The graph with halved weights, judged with as many views as fp32, whose place it takes in small packages."""
    graph = halve_weights(made.graphs["fp32"])
    judged = [_judge(source, made, "fp16", graph, views, resamples, progress) for views in made.tables["fp32"]]
    failures = rounding_failures(judged[0][1])
    if failures:
        raise ExportError(f"fp16: {'; '.join(failures)}. Nothing was written", "Export without it: --to onnx.")
    made.graphs["fp16"] = graph
    made.judged += [one for _, one in judged]
    made.tables["fp16"] = {one.views: table for table, one in judged}


def add_int8(source: ExportSource, made: Made, resamples: int, progress: Progress) -> None:
    """The int8 graph that passes its gates with the fewest layers in float."""
    train = training_rows(source.catalog, source.config)
    rows = stratified_subset(train, CALIBRATION_IMAGES)
    images = open_images(rows, source.spec.preprocess, source.config.data.model_copy(update={"cache": "memory"}))

    def judge(graph: bytes) -> tuple[Predictions, VariantParity]:
        return _judge(source, made, "int8", graph, 1, resamples, progress)

    found = find_int8(made.graphs["fp32"], rows, squares_of(images, range(len(rows))), judge, progress=progress)
    made.graphs["int8"] = found.graph
    made.judged.append(found.judged)
    made.tables["int8"] = {1: found.predictions}
    made.int8 = found.record


def _judge(
    source: ExportSource,
    made: Made,
    variant: VariantName,
    graph: bytes,
    views: int,
    resamples: int,
    progress: Progress,
) -> tuple[Predictions, VariantParity]:
    """What a rounded graph says of val, and what that is worth beside torch (one view) and fp32."""
    session = GraphSession.open(graph, VariantFiles[variant])
    step = partial(progress, f"{variant} on val")
    table = source.table(source_logits(session, source.val, views=views, progress=step))
    judged = judge_variant(
        variant,
        table,
        views=views,
        size_bytes=len(graph),
        torch_logits=source.torch_logits if views == 1 else None,
        fp32=made.tables["fp32"][views],
        resamples=resamples,
    )
    return table, judged
