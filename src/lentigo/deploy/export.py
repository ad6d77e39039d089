"""`lentigo export`: a run's weights -> a folder with graphs, description, proof, golden inputs and model card.

The folder appears whole, after every gate was passed, or not at all. Val judges the graphs, training images give the
ranges of int8, and test is never opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lentigo.core.environment import describe_environment
from lentigo.core.errors import ConfigError
from lentigo.core.files import write_text_atomic
from lentigo.core.run_dir import RunDir
from lentigo.core.shipped import START_FILE
from lentigo.deploy.export_source import Checkpoint, ExportSource, open_source
from lentigo.deploy.exported import (
    CARD_FILE,
    GOLDEN_FOLDER,
    LICENCE_FILE,
    PARITY_FILE,
    ExportedModel,
    Variant,
    VariantFiles,
    VariantName,
)
from lentigo.deploy.golden import write_golden
from lentigo.deploy.graph_session import GraphSession, usable_cores
from lentigo.deploy.int8 import Progress
from lentigo.deploy.onnx_graph import OPSET, linear_head, require_onnx, with_metadata
from lentigo.deploy.outlier_gate import add_outlier_gates
from lentigo.deploy.output_folder import check_folder, output_folder
from lentigo.deploy.parity import (
    Parity,
    compare_speed,
    latency_of,
    measure_latencies,
)
from lentigo.deploy.parity_table import parity_section
from lentigo.deploy.phone_export import MadePhone, make_phones, phone_targets, write_phones
from lentigo.deploy.phone_record import PhoneNames, PhoneTarget
from lentigo.deploy.provenance import card_text, describe_provenance, read_facts, weights_licence
from lentigo.deploy.start_weights import licence_text, save_start
from lentigo.deploy.variants import GOLDEN_SEED, Made, add_fp16, add_int8, check_graph, make_fp32
from lentigo.evaluation.fit_calibration import fit_calibration
from lentigo.models.cost import network_cost

TARGETS: Mapping[str, VariantName] = {"onnx": "fp32", "fp16": "fp16", "int8": "int8"}
"""The graphs that can be asked for, and the variant that each writes."""
DEFAULT_TARGETS = ("onnx", "int8")
ALL_TARGETS = (*TARGETS, *PhoneNames)


@dataclass(frozen=True, slots=True)
class Export:
    """What was written, and where."""

    folder: Path
    model: ExportedModel
    parity: Parity


def export_run(
    run: RunDir,
    *,
    targets: Sequence[str] = DEFAULT_TARGETS,
    out: Path | None = None,
    checkpoint: Checkpoint = "best",
    force: bool = False,
    name: str = "",
    with_start: bool = False,
    licence: str = "",
    resamples: int = 2000,
    progress: Progress = lambda what, done, total: None,
) -> Export:
    """Export a run's weights to `out` (default RUN/export). fp32 is always made, since the others are measured by it.

    `name` is what the model is called, by default as the run. `with_start` adds the checkpoint in half precision,
    from which trainings can begin, and the terms of the weights. `licence` replaces what the program knows of these
    terms. `progress` gets the name of a step, what of it is done and of how much.

    Raises:
        ConfigError: for unknown targets, a network that cannot be exported, or an `out` that is taken.
        CheckpointError: where the run has no usable weights or rows, or is still training.
        DataError: where val or training images are missing.
        ExportError: where a gate fails; then nothing was written.
        MissingExtraError: without onnx or onnxscript, or what a program for phones needs.
    """
    _check_targets(targets)
    require_onnx()
    phones_wanted = phone_targets(targets)
    folder = run.export if out is None else out
    check_folder(folder, force)
    source = open_source(run, checkpoint, progress)
    made = make_fp32(source, resamples, progress)
    golden = check_graph(source, made.graphs["fp32"])
    phones = make_phones(source, phones_wanted, progress)
    if "fp16" in targets:
        add_fp16(source, made, resamples, progress)
    if "int8" in targets:
        add_int8(source, made, resamples, progress)
    made.graphs, made.limits = add_outlier_gates(source, made.graphs, progress)
    progress("latency", 0, 1)
    parity = _describe(source, made, phones, name or run.path.resolve().name, checkpoint, golden, resamples)
    made.graphs = {variant: made.graphs[variant] for target, variant in TARGETS.items() if target in targets}
    facts = read_facts(run)
    model = _model(source, made, parity, resamples).model_copy(
        update={
            "licence": licence or weights_licence(facts),
            "provenance": describe_provenance(run, source.spec, facts, checkpoint=checkpoint),
            "phones": {target: one.program for target, one in phones.items()},
        }
    )
    with output_folder(folder, force=force) as new:
        model = _write(new, source, made, model)
        write_phones(new, phones)
        parity = _with_sizes(parity, model)
        parity.save(new / PARITY_FILE)
        if with_start:
            save_start(source.path, new / START_FILE)
            write_text_atomic(new / LICENCE_FILE, licence_text(model.licence))
        write_text_atomic(new / CARD_FILE, card_text(run, facts, parity_section(parity), model.licence))
    return Export(folder, model, parity)


def _check_targets(targets: Sequence[str]) -> None:
    unknown = [target for target in targets if target not in ALL_TARGETS]
    if unknown or not targets:
        raise ConfigError(
            f"expected targets of {', '.join(ALL_TARGETS)}; found {', '.join(unknown) or 'none'}",
            "For example --to onnx,int8.",
        )
    phones = [target for target in targets if target in PhoneNames]
    if phones and "onnx" not in targets:
        raise ConfigError(
            f"expected onnx beside {', '.join(phones)}, whose golden logits and calibration are its own; found "
            f"{', '.join(targets)}",
            f"For example --to onnx,{phones[0]}.",
        )


def _describe(
    source: ExportSource,
    made: Made,
    phones: Mapping[PhoneTarget, MadePhone],
    name: str,
    checkpoint: Checkpoint,
    golden: float,
    resamples: int,
) -> Parity:
    """parity.json, with the times of all graphs, run in turns."""
    size, threads = source.spec.preprocess.input_size_px, usable_cores()
    sessions = [GraphSession.open(graph, name, threads=threads) for name, graph in made.graphs.items()]
    times = dict(zip(made.graphs, measure_latencies(sessions, size), strict=True))
    int8 = made.int8
    if int8 is not None:
        int8 = int8.model_copy(update={"speed": compare_speed(times["fp32"], times["int8"])})
    cost = network_cost(source.network, size)
    return Parity(
        name=name,
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
        phones=tuple(one.parity for one in phones.values()),
        synthetic=source.catalog.synthetic,
    )


def _model(source: ExportSource, made: Made, parity: Parity, resamples: int) -> ExportedModel:
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
                outlier_limit=made.limits.get(name),
            )
            for name, tables in made.tables.items()
            if name in made.graphs
        },
        synthetic=source.catalog.synthetic,
    )


def _write(folder: Path, source: ExportSource, made: Made, model: ExportedModel) -> ExportedModel:
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
    judged = tuple(
        one.model_copy(update={"size_bytes": model.variants[one.variant].size_bytes})
        if one.variant in model.variants
        else one
        for one in parity.variants
    )
    return parity.model_copy(update={"variants": judged})
