"""The part of a run that may be published: settings, log and metrics; no image, no path, no file name of a patient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lentigo.core.errors import DataError
from lentigo.core.files import write_json_atomic
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.evaluation.run_metrics import read_metrics
from lentigo.evaluation.run_records import read_log
from lentigo.models.weights import origin_name
from lentigo.training.rows import judged_rows, training_rows
from lentigo.training.run import read_catalog

MACHINE = ("cpu", "cores", "threads", "platform", "python", "packages")


def summarise_run(run: RunDir, track: str) -> dict[str, Any]:
    """Everything that repeats and judges the run. `track` names the data, for example rgb-3k.

    Raises:
        DataError: where the run was not judged yet.
    """
    metrics = read_metrics(run)
    if not metrics:
        raise DataError(f"{run.path} was not judged yet", f"Run `lentigo evaluate {run.path}` first.")
    config, catalog, status = load_recipe(str(run.config)), read_catalog(run), run.read_status()
    environment = json.loads(run.environment.read_text(encoding="utf-8"))
    sessions = environment.get("sessions", [environment])
    settings = config.model_dump(mode="json", exclude={"about"})
    settings["model"]["weights"] = status.get("start") or origin_name(config.model.weights)
    return {
        "recipe": config.about.name,
        "recipe_changes": list(config.about.changes),
        "track": track,
        "synthetic": catalog.synthetic,
        "seed": config.training.seed,
        "state": status.get("message", status["state"]),
        "best_epoch": status.get("best_epoch"),
        "elapsed_s": status.get("elapsed_s"),
        "machine": {name: environment.get(name) for name in MACHINE},
        "lentigo": {
            "version": environment.get("lentigo"),
            "commits": list(dict.fromkeys(str(session.get("commit", "")) for session in sessions)),
        },
        "data": {
            "name": catalog.name,
            "sha256": catalog.sha256,
            "train_images": len(training_rows(catalog, config)),
            "val_images": len(judged_rows(catalog, "val")),
        },
        "test_looks": len(run.read_looks()),
        "settings": settings,
        "log": read_log(run.log),
        "metrics": metrics,
    }


def write_summary(run: RunDir, path: Path, track: str) -> Path:
    """Write the summary as JSON."""
    return write_json_atomic(path, summarise_run(run, track))
