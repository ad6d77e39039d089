"""A run with a network of 1,600 weights that has learnt its drawings a little: what the tests of the export export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lentigo.core.files import write_text_atomic
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.data.images import load_image
from lentigo.data.preprocess import Preprocess
from lentigo.models.checkpoint import ModelSpec, save_checkpoint
from lentigo.models.network import ARCHITECTURES, Architecture

NAME = "tiny-to-export"


def _block(inputs: int, outputs: int, groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
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


@contextmanager
def known_tiny() -> Iterator[None]:
    """The tiny network, known under NAME meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, NAME, TINY)
        yield


def make_run(folder: Path, catalog: Catalog, *, views: int = 1, steps: int = 150) -> RunDir:
    """Train on all train rows at once, `steps` times, and write a finished run; only within `known_tiny`."""
    preprocess = Preprocess(color_mode="gray", resize_steps_px=(32,))
    train = catalog.split("train")
    images = torch.from_numpy(np.stack([preprocess(load_image(row.path)) for row in train]))
    labels = torch.from_numpy(train.labels)
    torch.manual_seed(0)
    network = TinyNetwork(7, 0.1).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    run = RunDir(folder)
    catalog.to_csv(run.catalog)
    write_text_atomic(run.catalog_digest, catalog.sha256 + "\n")
    config = f'[preprocess]\ncolor_mode = "gray"\nresize_steps_px = [32]\n[model]\narchitecture = "{NAME}"\n'
    write_text_atomic(run.config, f'{config}weights = "none"\n[inference]\nviews = {views}\n[data]\ncache = "memory"\n')
    spec = ModelSpec(
        architecture=NAME,
        preprocess=preprocess,
        logit_shift=(0.5, 0.0, 0.0, 0.0, 0.0, -0.5, 0.0),
        views=views,
        provenance={"seed": "7", "recipe": "tiny"},
    )
    save_checkpoint(run.best, network.state_dict(), spec)
    save_checkpoint(run.last, network.state_dict(), spec)
    run.write_status("done", message="done")
    return run
