"""What a training would take, measured on a few of its steps."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import dataclass
from itertools import pairwise

import torch

from lentigo.core.config import Config
from lentigo.data.catalog import Catalog
from lentigo.training.devices import Devices, open_fabric
from lentigo.training.events import Listener
from lentigo.training.loop import Score, Trainer
from lentigo.training.recorder import Recorder
from lentigo.training.run import check_round

PLAN_STEPS = 4


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


def plan_run(config: Config, catalog: Catalog, *, where: Devices, score: Score, listen: Listener) -> Plan:
    """Build everything, time a few steps, start no run."""
    check_round(config, None)
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
