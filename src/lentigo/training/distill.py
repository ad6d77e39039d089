"""Distillation: a student learns what teachers see in images without labels, and becomes a start for training.

Features are matched as in FitNets (Romero et al., arXiv 1412.6550); student and teachers see the same augmented crop,
as in function matching (Beyer et al., arXiv 2106.05237), so that there is no end of examples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_fabric import Fabric

from lentigo.core.config import Config, TrainingConfig
from lentigo.core.environment import describe_environment
from lentigo.core.files import write_json_atomic
from lentigo.data.sources import load_catalog
from lentigo.data.unlabelled import gather_unlabelled
from lentigo.training.devices import Devices, open_fabric
from lentigo.training.distill_loop import Distiller
from lentigo.training.distill_settings import DistillSettings, StartDir
from lentigo.training.events import Listener, Message
from lentigo.training.recorder import Recorder

Accelerator = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class DistillOutcome:
    """How a session ended: `ended` is done, time limit, or empty where it was interrupted."""

    folder: StartDir
    ended: str
    epochs: int
    held_out_loss: float | None
    held_out_explained: float | None
    elapsed_s: float


def distill(
    settings: DistillSettings,
    out: Path,
    *,
    listen: Listener,
    accelerator: Accelerator = "auto",
    time_limit_min: float = 0.0,
) -> DistillOutcome:
    """Distil into a new folder `out`. Everything is opened first, so that bad input leaves no folder behind."""
    StartDir.check_free(out)
    fabric = _open_fabric(accelerator)
    recorder = Recorder(listen, silent=False)
    distiller = _open(settings, fabric, recorder)
    distiller.measure_teachers()
    folder = StartDir.make(out, settings)
    with folder.lock():
        recorder.attach(folder)
        return _run(distiller, folder, time_limit_min)


def resume_distill(
    out: Path, *, listen: Listener, accelerator: Accelerator = "auto", time_limit_min: float = 0.0
) -> DistillOutcome:
    """Continue an interrupted or time-limited distillation from its last saved step, or from its start without one."""
    folder = StartDir(out)
    settings = folder.read_settings()
    fabric = _open_fabric(accelerator)
    recorder = Recorder(listen, silent=False)
    with folder.lock():
        folder.clear_leftovers()
        distiller = _open(settings, fabric, recorder)
        if folder.state.is_file():
            distiller.resume(folder)
            progress = distiller.state.progress
            recorder(Message(f"resuming after epoch {progress.epoch}, step {progress.batch}"))
        else:
            distiller.measure_teachers()
        recorder.attach(folder)
        return _run(distiller, folder, time_limit_min)


def _open_fabric(accelerator: Accelerator) -> Fabric:
    """One device; bf16 on a GPU, 32 bits on a CPU."""
    precision = TrainingConfig(precision="auto")  # type: ignore[call-arg]
    return open_fabric(Config(training=precision), Devices(accelerator))


def _open(settings: DistillSettings, fabric: Fabric, listen: Listener) -> Distiller:
    images = Path(settings.images) if settings.images else None
    catalogs = [load_catalog(Path(source), images=images) for source in settings.catalogs]
    gathered = gather_unlabelled(
        catalogs,
        [Path(folder) for folder in settings.photographs],
        held_out_share=settings.held_out_share,
        seed=settings.seed,
    )
    return Distiller(settings, gathered, "+".join(catalog.sha256 for catalog in catalogs), fabric, listen)


def _run(distiller: Distiller, folder: StartDir, time_limit_min: float) -> DistillOutcome:
    _add_session(folder, distiller.settings.seed)
    with _status(folder, distiller):
        folder.write_status("running", **distiller.standing())
        ended = distiller.run(folder, time_limit_min * 60)
        folder.write_status(
            "done" if ended == "done" else "interrupted",
            message=ended or "stopped on request; resume with `lentigo distill --resume`",
            **distiller.standing(),
        )
    progress = distiller.state.progress
    last = progress.rows[-1] if progress.rows else {}
    return DistillOutcome(
        folder, ended, progress.epoch, last.get("held_out_loss"), last.get("held_out_explained"), progress.elapsed_s
    )


def _add_session(folder: StartDir, seed: int) -> None:
    """Versions, machine and commit of every session that took part."""
    session = describe_environment()
    try:
        facts = dict(json.loads(folder.environment.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        facts = session | {"seed": seed}
    write_json_atomic(folder.environment, facts | {"sessions": [*facts.get("sessions", []), session]})


@contextmanager
def _status(folder: StartDir, distiller: Distiller) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        message = "interrupted at once; resumes from the last saved state"
        folder.write_status("interrupted", message=message, **distiller.standing())
        raise
    except BaseException as error:
        first_line = str(error).splitlines()[0] if str(error) else ""
        folder.write_status("failed", message=f"{type(error).__name__}: {first_line}", **distiller.standing())
        raise
