"""A run that was never trained, for what needs weights and rows and not their quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lentigo.core.files import write_text_atomic
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.data.preprocess import Preprocess
from lentigo.models.checkpoint import ModelSpec, save_checkpoint
from lentigo.models.network import build_network


def untrained_run(folder: Path, catalog: Catalog, **preprocess: Any) -> RunDir:
    """A MobileNetV2 at 64 px with random weights on the rows of a catalogue, all settings the defaults."""
    run = RunDir(folder)
    catalog.to_csv(run.catalog)
    write_text_atomic(run.catalog_digest, catalog.sha256 + "\n")
    write_text_atomic(run.config, "")
    torch.manual_seed(0)
    spec = ModelSpec(architecture="mobilenet_v2", preprocess=Preprocess(resize_steps_px=(64,), **preprocess))
    save_checkpoint(run.best, build_network("mobilenet_v2", 7).state_dict(), spec)
    return run
