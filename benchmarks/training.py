"""Training throughput of Lentigo against a plain notebook loop, same images, same batch, in one run.

The plain loop is what the report's notebook would be: torchvision's network in NCHW, a DataLoader that decodes JPEG
and augments in every epoch, AdamW. Lentigo: decoded images cached, one warp, channels_last, freed memory kept; once
more with the system's own allocator settings. Each loop has its own process, and their rounds alternate, so that a busy
machine hurts all. Prints JSON and, with --out, writes it.

    python benchmarks/training.py --out results/benchmark-training.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from recording import record
from torch import nn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from torchvision import models, transforms

from lentigo.core.recipes import load_recipe
from lentigo.data.catalog import Catalog, Row
from lentigo.data.sampling import class_weights
from lentigo.data.sources import load_catalog
from lentigo.data.synthetic import write_synthetic
from lentigo.evaluation.run_evaluation import epoch_scores
from lentigo.training import loop
from lentigo.training.devices import Devices, open_fabric

RECIPES = {"mobilenet_v3_large": "paper-v3", "mobilenet_v2": "paper-v2"}


class PlainDataset(Dataset[tuple[torch.Tensor, int]]):
    """Decodes and augments a JPEG on every access."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.transform = transforms.Compose(
            [
                transforms.Resize((300, 300)),
                transforms.Grayscale(3),
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.RandomRotation(15),
                transforms.RandomAffine(0, translate=(0.1, 0.1), scale=(0.9, 1.1)),
                transforms.ColorJitter(brightness=0.2, contrast=0.2),
                transforms.Resize((224, 224)),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __len__(self) -> int:
        return len(self.catalog)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = self.catalog.rows[index]
        return self.transform(Image.open(row.path).convert("RGB")), row.label


def plain_steps(catalog: Catalog, architecture: str, batch_size: int, workers: int) -> Iterator[None]:
    """Yields after every optimiser step of the notebook's loop."""
    network = getattr(models, architecture)(num_classes=7).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    loss_function = nn.CrossEntropyLoss()
    weights = class_weights(catalog.labels, "inverse")[catalog.labels]
    while True:
        sampler = WeightedRandomSampler(weights.tolist(), len(catalog))
        for images, labels in DataLoader(
            PlainDataset(catalog), batch_size=batch_size, sampler=sampler, num_workers=workers, drop_last=True
        ):
            optimizer.zero_grad()
            loss = loss_function(network(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()
            yield


def lentigo_steps(catalog: Catalog, architecture: str, batch_size: int, keep_memory: bool = True) -> Iterator[None]:
    """Yields after every optimiser step of Lentigo's loop on the same recipe."""
    if not keep_memory:
        loop.keep_freed_memory = lambda: False
    changes = ["model.weights=none", f"training.batch_size={batch_size}", "training.selection_metric=last"]
    config = load_recipe(RECIPES[architecture], changes)
    trainer = loop.Trainer(config, catalog, open_fabric(config, Devices("cpu")), epoch_scores, lambda event: None)
    trainer.prepare_epoch(0)
    number = 0
    while True:
        for images, labels, _ in trainer.loader(number // trainer.steps_per_epoch, 0):
            trainer.step(images, labels, number)
            number += 1
            yield


LOOPS: dict[str, Callable[[Catalog, str, int], Iterator[None]]] = {
    "plain": lambda catalog, architecture, batch_size: plain_steps(catalog, architecture, batch_size, 0),
    "plain_2_workers": lambda catalog, architecture, batch_size: plain_steps(catalog, architecture, batch_size, 2),
    "lentigo_system_allocator": lambda catalog, architecture, batch_size: lentigo_steps(
        catalog, architecture, batch_size, keep_memory=False
    ),
    "lentigo": lambda catalog, architecture, batch_size: lentigo_steps(catalog, architecture, batch_size),
}


def serve(name: str, catalog: Catalog, architecture: str, batch_size: int, pipe: Connection) -> None:
    """Child process: runs as many steps as it is told and answers with images per second."""
    steps = LOOPS[name](catalog, architecture, batch_size)
    while count := pipe.recv():
        start_s = time.perf_counter()
        for _ in range(count):
            next(steps)
        pipe.send(count * batch_size / (time.perf_counter() - start_s))


def compare(catalog: Catalog, architecture: str, batch_size: int, images: int, rounds: int) -> dict[str, Any]:
    """Alternating rounds of every loop over about `images` images; a short first round warms up and does not count."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in LOOPS:
        pipes[name], theirs = context.Pipe()
        context.Process(target=serve, args=(name, catalog, architecture, batch_size, theirs)).start()
    seen: dict[str, list[float]] = {name: [] for name in LOOPS}
    for round_number in range(rounds + 1):
        for name, pipe in pipes.items():
            pipe.send(max(3, images // batch_size) if round_number else 3)
            rate = pipe.recv()
            if round_number:
                seen[name].append(round(rate, 2))
    for pipe in pipes.values():
        pipe.send(0)
    medians = {name: statistics.median(rates) for name, rates in seen.items()}
    ratios = {f"ratio_to_{name}": round(medians["lentigo"] / medians[name], 2) for name in LOOPS if name != "lentigo"}
    return {"architecture": architecture, "batch_size": batch_size, "images_per_s": seen} | ratios


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="HAM10000-style CSV; default: 320 drawn images of 300x300")
    parser.add_argument("--images", type=int, default=192, help="images a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = arguments.data or write_synthetic(Path(folder) / "drawn", num_images=320)
        catalog = load_catalog(table)
        rows = [row for row in catalog if row.split in ("", "train")][:320]
        catalog = Catalog(tuple(_as_train(row) for row in rows), catalog.name, catalog.synthetic)
        found = [
            compare(catalog, architecture, batch_size, arguments.images, arguments.rounds)
            for architecture in RECIPES
            for batch_size in arguments.batch_sizes
        ]
    result = {
        "images": f"{len(catalog)} of {catalog.name}",
        "images_a_round": arguments.images,
        "comparisons": found,
    }
    record(result, arguments.out)


def _as_train(row: Row) -> Row:
    return replace(row, split="train", lesion_id=row.image_id, primary=True)


if __name__ == "__main__":
    main()
