"""Starting and resuming a run: the folder, its lock and status around the loop."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from lentigo.core.config import Config
from lentigo.core.environment import describe_environment
from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.files import write_json_atomic, write_text_atomic
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog, read_catalog_csv
from lentigo.training.devices import Devices, open_fabric
from lentigo.training.events import Listener, Message
from lentigo.training.loop import Outcome, Score, Trainer
from lentigo.training.mining_table import RoundTable
from lentigo.training.recorder import Recorder


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
    check_round(config, table)
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


def check_round(config: Config, table: RoundTable | None) -> None:
    """ConfigError where the recipe mines and there is no table of a round to train on."""
    if config.mining.method != "none" and table is None:
        recipe = "THIS/config.toml" if config.mining.parent else config.about.name
        raise ConfigError(
            f"the recipe {config.about.name} continues a finished run by hard mining",
            f"Run `lentigo mine {config.mining.parent or 'RUN'} --recipe {recipe}`.",
        )


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
