"""Starting, planning and resuming a run: the folder, its lock and status around the loop."""

from __future__ import annotations

import atexit
import csv
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from lentigo.core.config import Config
from lentigo.core.environment import describe_environment
from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.files import write_json_atomic, write_text_atomic
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog, read_catalog_csv
from lentigo.training.events import Event, Listener, Message, describe
from lentigo.training.loop import Outcome, Score, Trainer
from lentigo.training.mining_table import RoundTable

PLAN_STEPS = 4


@dataclass(frozen=True)
class Devices:
    """Where to train: `accelerator` auto takes a CUDA GPU where there is one, else the CPU; `devices` a node."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    num_nodes: int = 1


@dataclass(frozen=True)
class Plan:
    """What a training would do, measured on a few steps."""

    train_images: int
    val_images: int
    steps_per_epoch: int
    epochs: int
    seconds_per_step: float
    eta_min: float
    cache_mb: float
    peak_memory_mb: float
    peak_gpu_memory_mb: float
    parameters: int
    rank: int = 0


def open_fabric(config: Config, where: Devices) -> Fabric:
    """Fabric, launched; a request that the machine cannot meet is a ConfigError.

    Under torchrun the processes exist already; otherwise Fabric starts the others of this node.
    """
    accelerator = where.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda":
        found = torch.cuda.device_count()
        if found < where.devices:
            raise ConfigError(
                f"--devices {where.devices}: found {found} CUDA devices",
                "Pass fewer devices, or --accelerator cpu.",
            )
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--accelerator mps: this machine has none", "Pass --accelerator cpu or cuda.")
    wanted = where.devices * where.num_nodes
    if TorchElasticEnvironment.detect() and (started := TorchElasticEnvironment().world_size()) != wanted:
        raise ConfigError(
            f"torchrun started {started} processes, but --devices {where.devices} x "
            f"--num-nodes {where.num_nodes} asks for {wanted}",
            "Pass torchrun's --nproc-per-node as --devices and its --nnodes as --num-nodes.",
        )
    precision = config.training.precision
    if precision == "auto":
        precision = "bf16" if accelerator == "cuda" else "32"
    if precision == "16" and accelerator == "cpu":
        raise ConfigError("training.precision = 16 needs a GPU; found a CPU", "Pass training.precision=32 or bf16.")
    fabric = Fabric(
        accelerator=accelerator,
        devices=where.devices,
        num_nodes=where.num_nodes,
        # Each process keeps its own BatchNorm statistics and the loop averages them; DDP's default would
        # overwrite them with the first process's at every step.
        strategy=DDPStrategy(broadcast_buffers=False) if wanted > 1 else "auto",
        precision={"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[precision],
    )
    fabric.launch()
    if wanted > 1:
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """Stop gloo's threads before the interpreter ends; left running, they abort the process now and then."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def start_run(
    config: Config,
    catalog: Catalog,
    *,
    root: Path,
    name: str | None,
    where: Devices,
    score: Score,
    listen: Listener,
    table: RoundTable | None = None,
    number: int = 1,
) -> tuple[RunDir, Outcome]:
    """Train a new run below `root`. Data and network are built first, so that bad input leaves no folder behind.

    `table` makes it a round of hard mining, kept as mining/round-`number`.csv.
    """
    _check_round(config, table)
    fabric = open_fabric(config, where)
    if name is not None and fabric.is_global_zero:
        RunDir.check_name(root, name)
    recorder = Recorder(listen, silent=not fabric.is_global_zero)
    trainer = Trainer(config, catalog, fabric, score, recorder, table=table)
    path = ""
    if fabric.is_global_zero:
        run = RunDir.create(root, config.model.architecture, name)
        catalog.to_csv(run.catalog)
        write_text_atomic(run.catalog_digest, f"{catalog.sha256}\n")
        if table is not None:
            table.to_csv(run.mining / f"round-{number}.csv")
        session = _describe_session()
        facts = {"seed": config.training.seed, "catalog": catalog.name, **asdict(where)}
        write_json_atomic(run.environment, session | facts | {"sessions": [session]})
        write_text_atomic(run.config, config.to_toml())  # last: a folder with a config.toml can be resumed
        path = str(run.path)
    run = RunDir(Path(fabric.broadcast(path)))
    with _held(run, fabric):
        recorder.attach(run)
        return run, _fit(trainer, run, fabric)


def resume_run(path: Path, *, where: Devices, score: Score, listen: Listener) -> tuple[RunDir, Outcome]:
    """Continue an interrupted run from its last saved step; a run without a saved state starts over in its folder."""
    run = RunDir.open(path)
    config = load_recipe(str(run.config))
    catalog = read_catalog(run)
    fabric = open_fabric(config, where)
    recorder = Recorder(listen, silent=not fabric.is_global_zero)
    with _held(run, fabric):
        saved = run.state.is_file()
        table = RoundTable.from_csv(run.mining_rounds[-1]) if run.mining_rounds else None
        if table is None and config.mining.method != "none":
            raise CheckpointError(f"{run.path}: no mining/round-N.csv", "Restore it, or mine the run again.")
        trainer = Trainer(config, catalog, fabric, score, recorder, resuming=saved, table=table)
        if saved:
            trainer.resume(run)
        recorder.attach(run)
        if saved:
            if fabric.is_global_zero:
                _add_session(run)
            progress = trainer.state.progress
            recorder(Message(f"resuming after epoch {progress.epoch}, step {progress.batch}"))
        return run, _fit(trainer, run, fabric)


def _check_round(config: Config, table: RoundTable | None) -> None:
    if config.mining.method != "none" and table is None:
        recipe = "THIS/config.toml" if config.mining.parent else config.about.name
        raise ConfigError(
            f"the recipe {config.about.name} continues a finished run by hard mining",
            f"Run `lentigo mine {config.mining.parent or 'RUN'} --recipe {recipe}`.",
        )


def judging_device(where: Devices) -> str:
    """Where single images are scored outside a training: as `where` says, auto as for a training."""
    if where.accelerator != "auto":
        return where.accelerator
    return "cuda" if torch.cuda.is_available() else "cpu"


def _describe_session() -> dict[str, Any]:
    """The environment, with the threads that compute: fewer than cores where trainings ran side by side."""
    return describe_environment() | {"threads": torch.get_num_threads()}


def _add_session(run: RunDir) -> None:
    """Note that another session took part: its commit and machine may differ from those of the first."""
    try:
        facts = dict(json.loads(run.environment.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        facts = {}
    write_json_atomic(run.environment, facts | {"sessions": [*facts.get("sessions", []), _describe_session()]})


def read_catalog(run: RunDir) -> Catalog:
    """The rows of a run, compared with their digest; CheckpointError where they were edited."""
    if not run.catalog.is_file():
        raise CheckpointError(f"{run.path}: no catalog.csv", "The run is damaged; train again.")
    try:
        catalog = read_catalog_csv(run.catalog)
    except (ValueError, csv.Error) as error:
        raise CheckpointError(f"{run.catalog} is damaged: {error}", "Restore the file, or train again.") from None
    digest = run.catalog_digest.read_text(encoding="utf-8").strip() if run.catalog_digest.is_file() else ""
    if digest != catalog.sha256:
        raise CheckpointError(
            f"{run.catalog} no longer matches its digest: rows or splits were changed after training",
            "Restore the file, or train a new run on the changed table.",
        )
    catalog.check_disjoint()
    return replace(catalog, name=_catalog_name(run))


def _catalog_name(run: RunDir) -> str:
    """What the catalogue was called when the run began; its copy is always catalog.csv."""
    try:
        return str(json.loads(run.environment.read_text(encoding="utf-8"))["catalog"])
    except (OSError, ValueError, KeyError, TypeError):
        return run.catalog.stem


def plan_run(config: Config, catalog: Catalog, *, where: Devices, score: Score, listen: Listener) -> Plan:
    """Build everything, time a few steps, start no run."""
    _check_round(config, None)
    fabric = open_fabric(config, where)
    trainer = Trainer(config, catalog, fabric, score, Recorder(listen, silent=not fabric.is_global_zero))
    trainer.prepare_epoch(config.optimizer.head_only_epochs)
    epochs, small_epochs = config.training.epochs, config.training.small_epochs
    seconds_per_step = _step_s(trainer, small_epochs)
    small_step_s = _step_s(trainer, 0) if small_epochs else 0.0
    # Validation runs forward only, at the full size: about a third of a training step for as many images.
    val_s = seconds_per_step / 3 * len(trainer.val_data) / config.training.batch_size
    steps_s = small_epochs * small_step_s + (epochs - small_epochs) * seconds_per_step
    total_s = trainer.steps_per_epoch * steps_s + epochs * val_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Plan(
        train_images=len(trainer.train_data),
        val_images=len(trainer.val_data),
        steps_per_epoch=trainer.steps_per_epoch,
        epochs=config.training.epochs,
        seconds_per_step=round(seconds_per_step, 4),
        eta_min=round(total_s / 60, 1),
        cache_mb=round((trainer.train_data.images.cached.nbytes + trainer.val_data.images.cached.nbytes) / 2**20, 1),
        peak_memory_mb=round(peak / 2**20, 1),
        peak_gpu_memory_mb=round(torch.cuda.max_memory_allocated() / 2**20, 1) if torch.cuda.is_available() else 0.0,
        parameters=sum(parameter.numel() for parameter in trainer.network.parameters()),
        rank=fabric.global_rank,
    )


def _step_s(trainer: Trainer, epoch: int) -> float:
    """Median seconds of a few steps as in this epoch; the first warms up, and counts only where it is alone."""
    clock_s = [time.perf_counter()]
    for number, (images, labels, _) in enumerate(trainer.loader(epoch, 0)):
        trainer.step(images, labels, number)
        clock_s.append(time.perf_counter())
        if number == PLAN_STEPS:
            break
    seconds = [later - earlier for earlier, later in pairwise(clock_s)]
    return statistics.median(seconds[1:] or seconds)


def _fit(trainer: Trainer, run: RunDir, fabric: Fabric) -> Outcome:
    if not fabric.is_global_zero:
        return trainer.fit(run)
    with _status(run, trainer):
        run.write_status("running", **trainer.facts())
        outcome = trainer.fit(run)
        run.write_status(
            "done" if outcome.finished else "interrupted",
            message=outcome.finished or "stopped on request; resume with `lentigo train --resume`",
            **trainer.facts(),
        )
    return outcome


@contextmanager
def _held(run: RunDir, fabric: Fabric) -> Iterator[None]:
    """The first process locks the run before any process reads its state."""
    with run.lock() if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            run.clear_leftovers()
        fabric.barrier()
        yield


@contextmanager
def _status(run: RunDir, trainer: Trainer) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        message = "interrupted at once; resumes from the last saved state"
        run.write_status("interrupted", message=message, **trainer.facts())
        raise
    except BaseException as error:
        first_line = str(error).splitlines()[0] if str(error) else ""
        run.write_status("failed", message=f"{type(error).__name__}: {first_line}", **trainer.facts())
        raise


class Recorder:
    """Passes events on and keeps what they say in the run's log.txt, from before the folder exists."""

    def __init__(self, listen: Listener, *, silent: bool) -> None:
        self._listen, self._silent = listen, silent
        self._waiting: list[str] = []
        self._file: Path | None = None

    def __call__(self, event: Event) -> None:
        """One event; processes other than the first say nothing."""
        if self._silent:
            return
        text = describe(event)
        if text is not None:
            self._waiting.append(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")
            self._flush()
        self._listen(event)

    def attach(self, run: RunDir) -> None:
        """Write to this run from now on, beginning with what was said before."""
        self._file = run.console
        self._flush()

    def _flush(self) -> None:
        if self._file is not None and not self._silent:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.writelines(self._waiting)
            self._waiting.clear()
