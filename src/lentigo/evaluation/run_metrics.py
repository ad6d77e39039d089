"""metrics.json of a run: its scores by split, and which weights they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lentigo.core.errors import CheckpointError, DataError
from lentigo.core.run_dir import RunDir
from lentigo.models.checkpoint import load_tensors, weights_digest

WEIGHTS_KEY = "weights_sha256"
"""Beside a judgement in metrics.json: `checkpoint.weights_digest` of the weights that the predictions are of."""


def read_metrics(run: RunDir) -> dict[str, Any]:
    """Content of metrics.json by split; empty where nothing was judged yet."""
    if not run.metrics.is_file():
        return {}
    return read_object(run.metrics, "Delete it and run `lentigo evaluate` again.")


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object; DataError with this remedy where the file holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", remedy) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: expected an object, found {type(content).__name__}", remedy)
    return content


def judged_weights(run: RunDir, split: str) -> str:
    """Digest of the weights that the stored predictions of a split are of; empty where it is not known.

    Predictions alone are left of a judgement of test that was cut off: they are of the weights that val was judged
    with, or test would not have been opened.
    """
    metrics = read_metrics(run)
    return str(metrics.get(split, metrics.get("val", {})).get(WEIGHTS_KEY, ""))


def present_weights(run: RunDir) -> str:
    """Digest of the run's chosen weights as they are now."""
    return weights_digest(load_tensors(run.best)[0])


def require_present_weights(run: RunDir, split: str) -> None:
    """CheckpointError where the stored predictions of a split are of other weights than the run has now."""
    if run.best.is_file() and judged_weights(run, split) not in ("", present_weights(run)):
        raise CheckpointError(
            f"{run.best} is not the model whose predictions of {split} the run holds; the training went on since",
            judge_remedy(run, "val"),  # which drops what is stale
        )


def judge_remedy(run: RunDir, split: str) -> str:
    """How to judge a split once more."""
    return f"Judge {split} again: lentigo evaluate {run.path} --split {split}."
