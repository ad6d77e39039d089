"""Time until the report's validation accuracy of MobileNetV3-Large, 73.8% on grayscale images, is reached.

The report's way: the seconds that the plain notebook loop (benchmarks/training.py) needs for an epoch, measured here
on some images and on validation, times the epochs that the recipe paper-v3 took in a recorded run. Lentigo's way: a
training by a strong recipe, timed from its first to the end of the epoch that reaches the mark, then stopped. Both on
the same machine, one after the other. Prints JSON and, with --out, writes it.

    python benchmarks/time_to_accuracy.py --data ham10000.csv --weights v3.safetensors \\
        --recorded results/report-gray-paper-v3-s0.json --out results/benchmark-time-to-accuracy.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from recording import record
from torch.utils.data import DataLoader
from torchvision import models
from training import PlainDataset, plain_steps

from lentigo.core.recipes import load_recipe
from lentigo.data.catalog import Catalog
from lentigo.data.sources import load_catalog
from lentigo.evaluation.run_evaluation import epoch_scores
from lentigo.models.weights import origin_name
from lentigo.training.devices import Devices
from lentigo.training.events import EpochDone, Event, describe
from lentigo.training.rows import judged_rows, training_rows
from lentigo.training.run import start_run

ARCHITECTURE, RECIPE, BATCH_SIZE = "mobilenet_v3_large", "paper-v3", 8
WARM_UP_STEPS = 3


@dataclass
class UntilReached:
    """Listens to a training and stops it at the end of the epoch whose validation accuracy reaches `target`."""

    target: float
    begin_s: float = field(default_factory=time.perf_counter)
    seconds: float | None = None
    epochs: int = 0
    accuracy: float = 0.0

    def __call__(self, event: Event) -> None:
        if (text := describe(event)) is not None:
            print(text, flush=True)
        if isinstance(event, EpochDone) and self.seconds is None:
            self.epochs, self.accuracy = int(event.row["epoch"]), event.row["val_accuracy"]
            if self.accuracy >= self.target:
                self.seconds = time.perf_counter() - self.begin_s
                os.kill(os.getpid(), signal.SIGTERM)


def plain_epoch_s(train: Catalog, val: Catalog, steps: int) -> float:
    """Seconds of a plain epoch with its validation, from `steps` training steps and as many validation batches."""
    loop = plain_steps(train, ARCHITECTURE, BATCH_SIZE, 0)
    for _ in range(WARM_UP_STEPS):
        next(loop)
    begin_s = time.perf_counter()
    for _ in range(steps):
        next(loop)
    train_s = (time.perf_counter() - begin_s) / (steps * BATCH_SIZE) * len(train)
    network = models.mobilenet_v3_large(num_classes=7).eval()
    begin_s, seen = time.perf_counter(), 0
    with torch.no_grad():
        for images, _ in DataLoader(PlainDataset(val), batch_size=BATCH_SIZE):
            network(images)
            seen += len(images)
            if seen >= steps * BATCH_SIZE:
                break
    return train_s + (time.perf_counter() - begin_s) / seen * len(val)


def recorded_epochs(path: Path, target: float) -> tuple[int | None, int]:
    """The first epoch of a recorded run that reached `target`, and how many epochs it had."""
    log = json.loads(path.read_text(encoding="utf-8"))["log"]
    reached = [int(row["epoch"]) for row in log if row["val_accuracy"] >= target]
    return (reached[0] if reached else None), len(log)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="HAM10000-style CSV with splits")
    parser.add_argument("--weights", required=True, help="start of the strong recipe's network")
    parser.add_argument("--recorded", type=Path, required=True, help="result file of a run of paper-v3")
    parser.add_argument("--recipe", default="strong-v3")
    parser.add_argument("--target", type=float, default=0.738)
    parser.add_argument("--plain-steps", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    catalog = load_catalog(arguments.data)
    config = load_recipe(arguments.recipe, ["preprocess.color_mode=gray", f"model.weights={arguments.weights}"])
    train, val = training_rows(catalog, config), judged_rows(catalog, "val")
    epochs, recorded = recorded_epochs(arguments.recorded, arguments.target)
    epoch_s = plain_epoch_s(train, val, arguments.plain_steps)
    until = UntilReached(arguments.target)
    with tempfile.TemporaryDirectory() as folder:
        start_run(
            config, catalog, root=Path(folder), name="run", where=Devices("cpu"), score=epoch_scores, listen=until
        )
    plain_s = epoch_s * (epochs or recorded)
    result: dict[str, Any] = {
        "target_val_accuracy": arguments.target,
        "plain": {
            "recipe": RECIPE,
            "seconds_an_epoch": round(epoch_s, 1),
            "epochs": epochs,
            "epochs_recorded": recorded,
            "seconds": round(plain_s, 1),
            "recorded_run": arguments.recorded.name,
        },
        "strong": {
            "recipe": arguments.recipe,
            "start": origin_name(arguments.weights),
            "seed": config.training.seed,
            "epochs": until.epochs,
            "val_accuracy": until.accuracy,
            "seconds": None if until.seconds is None else round(until.seconds, 1),
        },
        "ratio": None if until.seconds is None else round(plain_s / until.seconds, 2),
        "ratio_is_lower_bound": epochs is None,
        "threads": torch.get_num_threads(),
    }
    record(result, arguments.out)


if __name__ == "__main__":
    main()
