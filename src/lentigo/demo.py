"""The whole way once, on drawn images: draw, split, train, judge, report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lentigo.core.errors import ConfigError
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.make_split import make_splits
from lentigo.data.sources import load_catalog
from lentigo.data.synthetic import write_synthetic
from lentigo.evaluation.evaluate import Judgement
from lentigo.evaluation.run_evaluation import epoch_scores, evaluate_run
from lentigo.evaluation.show_data import show_data
from lentigo.training.devices import Devices
from lentigo.training.events import Listener, Message
from lentigo.training.run import start_run

RECIPE = "demo"
FRACTIONS = {"train": 0.7, "val": 0.3}


@dataclass(frozen=True)
class DemoOutcome:
    """Where the run lies and how it was judged."""

    run: RunDir
    judgement: Judgement
    elapsed_s: float

    @property
    def report(self) -> Path:
        """The report to open."""
        return self.run.report

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "synthetic": True,
            "report": str(self.report),
            "elapsed_s": round(self.elapsed_s, 1),
            "judgement": self.judgement.as_dict(),
        }


def run_demo(folder: Path, *, num_images: int, epochs: int, seed: int, listen: Listener) -> DemoOutcome:
    """Everything below `folder`, which must be new or empty."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", "Remove it, or name another: lentigo demo FOLDER")
    started_s = time.perf_counter()
    listen(Message(f"drawing {num_images} synthetic images"))
    table = write_synthetic(folder / "data", num_images=num_images, seed=seed)
    split = folder / "split.csv"
    make_splits(
        table,
        split,
        images=None,
        fractions=FRACTIONS,
        folds=None,
        seed=seed,
        near_duplicates=True,
        allow_missing_classes=False,
        force=False,
        progress=lambda done, total: None,
    )
    catalog = load_catalog(split)
    config = load_recipe(RECIPE, [f"training.epochs={epochs}", f"training.seed={seed}"])
    show_data(catalog, config, folder / "figures", "png", seed)
    run, outcome = start_run(
        config,
        catalog,
        root=folder / "runs",
        name="demo",
        where=Devices("cpu"),
        score=epoch_scores,
        listen=listen,
    )
    if not outcome.finished:
        listen(Message(f"stopped; saved. Continue: lentigo train --resume {run.path}"))
        raise KeyboardInterrupt
    judgement = evaluate_run(run, "val")
    return DemoOutcome(run, judgement, time.perf_counter() - started_s)
