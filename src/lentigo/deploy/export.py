"""`lentigo export`: a run's weights -> a folder with graphs, description, proof, golden inputs and model card.

The folder appears whole, after every gate was passed, or not at all. Val judges the graphs, training images give the
ranges of int8, and test is never opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lentigo.core.environment import describe_environment
from lentigo.core.errors import ConfigError
from lentigo.core.files import write_text_atomic
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.data.cache import open_images
from lentigo.deploy.export_source import Checkpoint, ExportSource, open_source
from lentigo.deploy.exported import (
    CARD_FILE,
    GOLDEN_FOLDER,
    PARITY_FILE,
    ExportedModel,
    Variant,
    VariantFiles,
    VariantName,
)
from lentigo.deploy.golden import draw_golden, golden_square, write_golden
from lentigo.deploy.graph_session import GraphSession, usable_cores
from lentigo.deploy.int8 import Progress, find_int8
from lentigo.deploy.onnx_graph import OPSET, PixelGraph, export_graph, linear_head, require_onnx, with_metadata
from lentigo.deploy.output_folder import check_folder, output_folder
from lentigo.deploy.parity import (
    Int8Record,
    Parity,
    VariantParity,
    compare_speed,
    judge_variant,
    latency_of,
    max_difference,
    measure_latencies,
    require_fp32,
)
from lentigo.deploy.parity_table import parity_section
from lentigo.deploy.provenance import card_text, describe_provenance, read_facts, weights_licence
from lentigo.deploy.quantize import CALIBRATION_IMAGES
from lentigo.deploy.squares import source_logits, squares_of
from lentigo.evaluation.fit_calibration import fit_calibration
from lentigo.evaluation.robustness import stratified_subset
from lentigo.models.cost import network_cost
from lentigo.training.rows import training_rows

TARGETS = ("onnx", "int8")
GOLDEN_SEED = 0


@dataclass(frozen=True, slots=True)
class Export:
    """What was written, and where."""

    folder: Path
    model: ExportedModel
    parity: Parity


@dataclass
class _Made:
    """What has been made so far: graph of each variant, what val says of it, and its tables by number of views."""

    graphs: dict[VariantName, bytes]
    judged: list[VariantParity]
    tables: dict[VariantName, dict[int, Predictions]]
    int8: Int8Record | None = None


def export_run(
    run: RunDir,
    *,
    targets: Sequence[str] = TARGETS,
    out: Path | None = None,
    checkpoint: Checkpoint = "best",
    force: bool = False,
    licence: str = "",
    resamples: int = 2000,
    progress: Progress = lambda what, done, total: None,
) -> Export:
    """Export a run's weights to `out` (default RUN/export). fp32 is always written: int8 is measured by it.

    `licence` replaces what the program knows of the terms of the weights. `progress` gets the name of a step, what
    of it is done and of how much.

    Raises:
        ConfigError: for unknown targets, a network that cannot be exported, or an `out` that is taken.
        CheckpointError: where the run has no usable weights or rows, or is still training.
        DataError: where val or training images are missing.
        ExportError: where a gate fails; then nothing was written.
        MissingExtraError: without onnx or onnxscript.
    """
    _check_targets(targets)
    require_onnx()
    folder = run.export if out is None else out
    check_folder(folder, force)
    source = open_source(run, checkpoint, progress)
    made = _make_fp32(source, resamples, progress)
    golden = _check_golden(source, made.graphs["fp32"])
    if "int8" in targets:
        _add_int8(source, made, resamples, progress)
    progress("latency", 0, 1)
    parity = _describe(source, made, checkpoint, golden, resamples)
    facts = read_facts(run)
    model = _model(source, made, parity, resamples).model_copy(
        update={
            "licence": licence or weights_licence(facts),
            "provenance": describe_provenance(source.spec, facts, checkpoint=checkpoint),
        }
    )
    with output_folder(folder, force=force) as new:
        model = _write(new, source, made, model)
        parity = _with_sizes(parity, model)
        parity.save(new / PARITY_FILE)
        write_text_atomic(new / CARD_FILE, card_text(run, facts, parity_section(parity), model.licence))
    return Export(folder, model, parity)


def _check_targets(targets: Sequence[str]) -> None:
    unknown = [target for target in targets if target not in TARGETS]
    if unknown or not targets:
        raise ConfigError(
            f"expected targets of {', '.join(TARGETS)}; found {', '.join(unknown) or 'none'}",
            "For example --to onnx,int8.",
        )


def _make_fp32(source: ExportSource, resamples: int, progress: Progress) -> _Made:
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
    return _Made({"fp32": graph}, judged, {"fp32": tables})


def _check_golden(source: ExportSource, graph: bytes) -> float:
    """The gate of fp32 on the golden inputs, and the largest difference there."""
    files = draw_golden(GOLDEN_SEED)
    squares = np.stack([golden_square(source.spec.preprocess, data, name) for name, data in files.items()])
    with torch.inference_mode():
        expected = PixelGraph(source.network, source.spec)(torch.from_numpy(squares))[0].numpy()
    difference = max_difference(GraphSession.open(graph, VariantFiles["fp32"]).logits(squares), expected)
    require_fp32(difference, len(squares), "golden inputs")
    return difference


def _add_int8(source: ExportSource, made: _Made, resamples: int, progress: Progress) -> None:
    train = training_rows(source.catalog, source.config)
    rows = stratified_subset(train, CALIBRATION_IMAGES)
    images = open_images(rows, source.spec.preprocess, source.config.data.model_copy(update={"cache": "memory"}))
    fp32 = made.tables["fp32"][1]

    def judge(graph: bytes) -> tuple[Predictions, VariantParity]:
        session = GraphSession.open(graph, VariantFiles["int8"])
        table = source.table(source_logits(session, source.val, progress=partial(progress, "int8 on val")))
        judged = judge_variant(
            "int8",
            table,
            views=1,
            size_bytes=len(graph),
            torch_logits=source.torch_logits,
            fp32=fp32,
            resamples=resamples,
        )
        return table, judged

    found = find_int8(made.graphs["fp32"], rows, squares_of(images, range(len(rows))), judge, progress=progress)
    made.graphs["int8"] = found.graph
    made.judged.append(found.judged)
    made.tables["int8"] = {1: found.predictions}
    made.int8 = found.record


def _describe(source: ExportSource, made: _Made, checkpoint: Checkpoint, golden: float, resamples: int) -> Parity:
    """parity.json, with the times of all graphs, run in turns."""
    size, threads = source.spec.preprocess.input_size_px, usable_cores()
    sessions = [GraphSession.open(graph, name, threads=threads) for name, graph in made.graphs.items()]
    times = dict(zip(made.graphs, measure_latencies(sessions, size), strict=True))
    int8 = made.int8
    if int8 is not None:
        int8 = int8.model_copy(update={"speed": compare_speed(times["fp32"], times["int8"])})
    cost = network_cost(source.network, size)
    return Parity(
        name=source.run.path.resolve().name,
        architecture=source.spec.architecture,
        checkpoint=checkpoint,
        parameters=cost.parameters,
        macs=cost.macs,
        opset=OPSET,
        resamples=resamples,
        machine=str(describe_environment()["cpu"]) or "an unknown processor",
        threads=threads,
        golden_difference=golden,
        variants=tuple(
            one.model_copy(update={"latency": latency_of(times[one.variant], threads)}) if one.views == 1 else one
            for one in made.judged
        ),
        int8=int8,
        synthetic=source.catalog.synthetic,
    )


def _model(source: ExportSource, made: _Made, parity: Parity, resamples: int) -> ExportedModel:
    """model.json, with a calibration for each variant and number of views; digests come with the files."""
    weight, bias = linear_head(source.network, source.spec)
    return ExportedModel(
        name=parity.name,
        architecture=parity.architecture,
        preprocess=source.spec.preprocess,
        opset=parity.opset,
        parameters=parity.parameters,
        macs=parity.macs,
        views=source.spec.views,
        head_weight=weight,
        head_bias=bias,
        variants={
            name: Variant(
                file=VariantFiles[name],
                sha256="",
                size_bytes=0,
                calibrations={
                    str(views): fit_calibration(table, resamples=resamples).model_dump(mode="json")
                    for views, table in tables.items()
                },
            )
            for name, tables in made.tables.items()
        },
        synthetic=source.catalog.synthetic,
    )


def _write(folder: Path, source: ExportSource, made: _Made, model: ExportedModel) -> ExportedModel:
    """Graphs with their metadata, golden inputs, and model.json with the digests, which is returned."""
    text = model.model_dump_json()
    variants: dict[VariantName, Variant] = {}
    for name, graph in made.graphs.items():
        content = with_metadata(graph, text)
        (folder / VariantFiles[name]).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        variants[name] = model.variants[name].model_copy(update={"sha256": digest, "size_bytes": len(content)})
    model = model.model_copy(update={"variants": variants})
    model.save(folder)
    write_golden(
        folder / GOLDEN_FOLDER,
        source.spec.preprocess,
        {name: _logits_of(model, folder, name) for name in made.graphs},
        seed=GOLDEN_SEED,
    )
    return model


def _logits_of(
    model: ExportedModel, folder: Path, name: VariantName
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """The written file, read back: what is in the golden inputs is what the files say."""
    session = GraphSession.open(model.read_graph(folder, name), VariantFiles[name])
    return session.logits


def _with_sizes(parity: Parity, model: ExportedModel) -> Parity:
    sizes: Mapping[VariantName, int] = {name: variant.size_bytes for name, variant in model.variants.items()}
    judged = tuple(one.model_copy(update={"size_bytes": sizes[one.variant]}) for one in parity.variants)
    return parity.model_copy(update={"variants": judged})
