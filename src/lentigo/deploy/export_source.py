"""What an export starts from: a finished run, opened, and what its network says of val in torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lentigo.core.config import Config
from lentigo.core.errors import CheckpointError, DataError
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.cache import ImageSource, open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset
from lentigo.deploy.int8 import Progress
from lentigo.models.checkpoint import ModelSpec, load_checkpoint
from lentigo.training.inference import predict_logits
from lentigo.training.rows import judged_rows
from lentigo.training.run import read_catalog

Checkpoint = Literal["best", "last"]


@dataclass(frozen=True)
class ExportSource:
    """A run, opened: its checkpoint, that network on the CPU, its rows, what torch says of val, (N, 7), one view."""

    run: RunDir
    path: Path
    network: nn.Module
    spec: ModelSpec
    config: Config
    catalog: Catalog
    val: ImageSource
    torch_logits: NDArray[np.float32]

    def table(self, logits: NDArray[np.float32]) -> Predictions:
        """Logits (N, 7) of val with its ids and labels."""
        rows = self.val.catalog.rows
        labels = self.val.catalog.labels
        return Predictions(tuple(row.image_id for row in rows), tuple(row.lesion_id for row in rows), labels, logits)


def open_source(run: RunDir, checkpoint: Checkpoint, progress: Progress) -> ExportSource:
    """A finished run's chosen weights, with val judged by torch.

    Raises:
        CheckpointError: where the run is not finished, or its weights were trained on other rows.
        DataError: where it has no rows in val, or their images are missing.
    """
    path = run.best if checkpoint == "best" else run.last
    state = run.read_status()["state"]
    if state != "done" or not path.is_file():
        raise CheckpointError(
            f"expected the weights of a finished run in {path}; found a run that is {state}"
            + ("" if path.is_file() else ", without them"),
            f"Finish the training first: lentigo train --resume {run.path}",
        )
    catalog, config = read_catalog(run), load_recipe(str(run.config))
    network, spec = load_checkpoint(path)
    trained_on = spec.provenance.get("catalog_sha256", catalog.sha256)
    if trained_on != catalog.sha256:
        raise CheckpointError(
            f"{path} was trained on the rows {trained_on[:12]}; the run's catalogue is {catalog.sha256[:12]}",
            "Put back the weights or the catalogue of this run; scores on other rows could count trained lesions.",
        )
    rows = judged_rows(catalog, "val")
    if not len(rows):
        raise DataError(
            f"{run.catalog} has no rows in val; an export is judged on them",
            "Train on a table with train and val: `lentigo data split` makes one.",
        )
    images = open_images(rows, spec.preprocess, config.data)
    logits = predict_logits(
        network,
        LesionDataset(images),
        channels_last=config.training.channels_last,
        progress=partial(progress, "torch on val"),
    ).logits
    return ExportSource(run, path, network, spec, config, catalog, images, logits)
