"""Folders of runs that hold what comparisons read: settings, rows' digest, status and predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir


def predictions(seed: int, skill: float, count: int = 140) -> Predictions:
    """A table of the same images for every seed; `skill` is added to the true class's logit."""
    labels = np.arange(count) % 7
    logits = np.random.default_rng(seed).normal(size=(count, 7)).astype(np.float32)
    logits[np.arange(count), labels] += skill
    names = tuple(f"image-{i:04d}" for i in range(count))
    return Predictions(names, names, labels, logits)


def judged_run(
    root: Path,
    name: str,
    tables: dict[str, Predictions],
    *,
    recipe: str = "quick",
    overrides: tuple[str, ...] = (),
    rows: str = "a" * 64,
    looks: int = 0,
    synthetic: bool = False,
) -> RunDir:
    """A run of two minutes with these predictions by split."""
    run = RunDir(root / name)
    run.path.mkdir(parents=True)
    for split, table in tables.items():
        table.to_csv(run.predictions(split))
    run.config.write_text(load_recipe(recipe, list(overrides)).to_toml(), encoding="utf-8")
    run.catalog_digest.write_text(f"{rows}\n", encoding="utf-8")
    run.write_status("done", elapsed_s=120.0, synthetic=synthetic)
    for _ in range(looks):
        run.add_look()
    return run
