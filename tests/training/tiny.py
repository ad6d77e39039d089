"""A training that takes a second: a network of 1,600 weights on 32-pixel drawings.

The tests of the loop load this module through the fixture `tiny`; those with several processes run it as a
script: `python tiny.py FOLDER DEVICES start:NAME resume:NAME ...`, where FOLDER holds tiny.csv and NAME.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lentigo.core.config import Config
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe, parse_config
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog, read_catalog_csv
from lentigo.models.network import ARCHITECTURES, Architecture
from lentigo.training.devices import Devices
from lentigo.training.events import Listener
from lentigo.training.loop import Outcome
from lentigo.training.run import resume_run, start_run


def _block(inputs: int, outputs: int, groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class TinyNetwork(nn.Module):
    """Three blocks (one of them depthwise), dropout and a linear head."""

    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(_block(3, 8, 1), _block(8, 8, 8), _block(8, 16, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(16, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))


TINY = Architecture(
    TinyNetwork,
    head="classifier.1",
    head_prefix="classifier.",
    blocks="features",
    cam_layer="features.2",
    feature_dim=16,
)


def make_config(**sections: dict[str, object]) -> Config:
    """Two epochs in batches of four on 32 pixels, with all that draws random numbers or keeps a memory."""
    values: dict[str, dict[str, object]] = {
        "data": {"num_workers": 0, "cache": "memory"},
        "preprocess": {"resize_steps_px": [32]},
        "augment": {"rotation_degrees": 90.0, "horizontal_flip": 0.5, "brightness": 0.2},
        "model": {"architecture": "tiny", "weights": "none", "dropout": 0.3},
        "optimizer": {
            "schedule": "one_cycle",
            "learning_rate": 0.01,
            "head_only_epochs": 1,
            "gradient_clip_norm": 1.0,
        },
        "regularization": {"ema_decay": 0.9, "mixup_alpha": 0.2, "cutmix_alpha": 1.0},
        "training": {
            "epochs": 2,
            "batch_size": 4,
            "sampler": "sqrt",
            "precision": "32",
            "checkpoint_min": 0.0,
        },
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    return parse_config(values, "test")


def make_plain_config(**sections: dict[str, object]) -> Config:
    """The same without anything random: no augmentation, dropout, mixing, average; BatchNorm frozen."""
    plain: dict[str, dict[str, object]] = {
        "augment": {"rotation_degrees": 0.0, "horizontal_flip": 0.0, "brightness": 0.0},
        "model": {"dropout": 0.0, "batch_norm": "frozen"},
        "optimizer": {"head_only_epochs": 0, "gradient_clip_norm": 0.0},
        "regularization": {"ema_decay": 0.0, "mixup_alpha": 0.0, "cutmix_alpha": 0.0},
        "training": {"sampler": "none"},
    }
    for section, changes in sections.items():
        plain[section] = {**plain.get(section, {}), **changes}
    return make_config(**plain)


def score(predictions: Predictions) -> dict[str, float]:
    """The four numbers that the loop wants."""
    probs, label = predictions.probs, predictions.label
    answer = probs.argmax(axis=1)
    recalls = [float((answer[label == c] == c).mean()) for c in sorted(set(label.tolist()))]
    return {
        "loss": float(-np.log(probs[np.arange(len(label)), label]).mean()),
        "accuracy": float((answer == label).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(np.mean(recalls)),
    }


def start(
    config: Config, catalog: Catalog, root: Path, name: str = "run", listen: Listener = lambda event: None
) -> tuple[RunDir, Outcome]:
    """`start_run` on one CPU."""
    return start_run(config, catalog, root=root, name=name, where=Devices("cpu"), score=score, listen=listen)


def resume(run: RunDir, listen: Listener = lambda event: None) -> tuple[RunDir, Outcome]:
    """`resume_run` on one CPU."""
    return resume_run(run.path, where=Devices("cpu"), score=score, listen=listen)


class TableKeeper:
    """A score that writes the table it judges, so that a test can read it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, predictions: Predictions) -> dict[str, float]:
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        predictions.to_csv(self.folder / f"val-{rank}.csv")
        return score(predictions)


def main(folder: Path, devices: int, orders: list[str]) -> None:
    """Start or resume the named runs below `folder`, one after the other."""
    torch.set_num_threads(1)
    ARCHITECTURES["tiny"] = TINY
    where, catalog = Devices("cpu", devices=devices), read_catalog_csv(folder / "tiny.csv")
    for verb, _, name in (order.partition(":") for order in orders):
        tables = folder / f"{name}-tables"
        tables.mkdir(exist_ok=True)
        keeper = TableKeeper(tables)
        if verb == "resume":
            resume_run(folder / name, where=where, score=keeper, listen=print)
            continue
        config = load_recipe(str(folder / f"{name}.toml"))
        start_run(config, catalog, root=folder, name=name, where=where, score=keeper, listen=print)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
