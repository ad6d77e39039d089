"""Whether a few images of each class are learnt better from the shipped backbone than from ImageNet weights.

The lesions of val, which no weights were fitted to, are halved once. For each seed up to --shots images of each class
are drawn from one half, repeat photographs among them; every start is trained on just these by the same recipe, all
with a new classifier, and judged by its last epoch on the primary images of the other half. Differences are paired by
seed and lesion. What the shipped weights still had from val is said in the result. Prints JSON and, with --out, writes
it.

    python benchmarks/few_shot.py ham10000.csv --imagenet mobilenet_v2.safetensors --out results/benchmark-few-shot.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from recording import record
from safetensors.torch import save_file

from lentigo.core.config import Config
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.cache import ImageSource, open_images
from lentigo.data.catalog import Catalog, Row
from lentigo.data.dataset import LesionDataset
from lentigo.data.sources import load_catalog
from lentigo.data.splits import fold_assignment
from lentigo.evaluation.arms import align
from lentigo.evaluation.compare import compare
from lentigo.evaluation.resampling import arm_estimates, mean_scores, resampled_scores
from lentigo.evaluation.run_evaluation import epoch_scores
from lentigo.models.checkpoint import load_checkpoint
from lentigo.models.network import find_architecture
from lentigo.models.weights import origin_name, read_tensors, weights_path
from lentigo.training.devices import Devices
from lentigo.training.events import Event
from lentigo.training.inference import predict_logits
from lentigo.training.rows import build_preprocess, judged_rows
from lentigo.training.run import start_run

RECIPE = "quick"
CHANGES = (
    "model.architecture=mobilenet_v2",
    "data.include_repeats=true",  # of the drawn rows
    "training.selection_metric=last",  # nothing is chosen on the judged half
    "training.batch_size=16",
    "regularization.ema_decay=0",  # a hundred steps are too few to average
)
HALVES_SEED = 0
METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
RESAMPLES = 2000
CAVEATS = (
    "The shipped weights were fitted to no image of val, but their epoch and recipe were chosen on val and their "
    "calibration was fitted there.",
    "The task has the same seven classes, clinics and cameras as the shipped model's training: other classes, or "
    "images from elsewhere, may gain less.",
)


def halve(val: Catalog) -> tuple[Catalog, Catalog]:
    """Two lesion-disjoint halves of val, stratified by class: to draw from, and to be judged on."""
    fold = fold_assignment(val, 2, HALVES_SEED)
    return val.pick(fold == 0), val.pick(fold == 1)


def draw(half: Catalog, shots: int, seed: int) -> Catalog:
    """Up to `shots` images of each class, as training rows; a class with fewer gives what it has."""
    generator = np.random.default_rng(seed)
    rows: list[Row] = []
    for label in range(len(CLASS_CODES)):
        own = [row for row in half if row.label == label]
        picked = generator.permutation(len(own))[:shots]
        rows += [replace(own[number], split="train") for number in sorted(picked)]
    return replace(half, rows=tuple(rows))


def count_classes(rows: Catalog) -> dict[str, int]:
    """Images of each class."""
    return dict(zip(CLASS_CODES, rows.class_counts.tolist(), strict=True))


def without_head(weights: str, config: Config, folder: Path) -> str:
    """A file of the backbone alone, so that every start gets a new classifier; `imagenet` has one of other classes."""
    if weights == "imagenet":
        return weights
    prefix = find_architecture(config.model.architecture).head_prefix
    tensors = read_tensors(weights_path(weights))
    path = folder / f"{Path(weights).stem}-backbone.safetensors"
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}, path)
    return str(path)


def train_and_judge(config: Config, rows: Catalog, judged: ImageSource, folder: Path) -> Predictions:
    """Logits of the judged half after one training on `rows`."""
    run, _ = start_run(
        config, rows, root=folder, name=None, where=Devices("cpu"), score=epoch_scores, listen=_say_nothing
    )
    return predict_logits(load_checkpoint(run.last)[0], LesionDataset(judged))


def _say_nothing(event: Event) -> None:
    """What a training says is not shown."""


def scores(arms: Mapping[str, Sequence[Predictions]]) -> dict[str, Any]:
    """METRICS of every start, mean over seeds, and their paired differences; resampled by lesion and seed."""
    aligned = align(arms)
    points, samples = mean_scores(aligned), resampled_scores(aligned, resamples=RESAMPLES, seed=0)
    estimates = arm_estimates(aligned, points, samples)
    tested = compare(arms, split="val", resamples=RESAMPLES)
    return {
        "n_images": tested.n_images,
        "n_lesions": tested.n_lesions,
        "interval": tested.interval,
        "resamples": RESAMPLES,
        "scores": {arm: {metric: asdict(found[metric]) for metric in METRICS} for arm, found in estimates.items()},
        "each_seed": {
            arm: [mean_scores(align({arm: [table]}, least=1))[arm]["balanced_accuracy"] for table in tables]
            for arm, tables in arms.items()
        },
        "differences": {
            f"{one.other} less {one.baseline}": {
                metric: one.metrics[metric].model_dump(include={"value", "ci_low", "ci_high", "p"})
                for metric in METRICS
            }
            for one in tested.comparisons
        },
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="HAM10000-style CSV with splits")
    parser.add_argument("--start", default="lentigo", help="lentigo, or a checkpoint that never saw a lesion of val")
    parser.add_argument("--imagenet", default="imagenet", help="imagenet, or a file with these weights")
    parser.add_argument("--shots", type=int, default=20, help="images of each class")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", type=int, default=224, help="side of the network's input in pixels")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    changes = [*CHANGES, f"training.epochs={arguments.epochs}", f"preprocess.resize_steps_px=[{arguments.size}]"]
    recipe = load_recipe(RECIPE, changes)
    catalog = load_catalog(arguments.data)
    pool, rest = halve(catalog.split("val"))
    preprocess = build_preprocess(recipe, find_architecture(recipe.model.architecture))
    judged = open_images(judged_rows(rest, "val"), preprocess, recipe.data)
    arms: dict[str, list[Predictions]] = {"imagenet": [], "lentigo": []}
    starts = {"imagenet": arguments.imagenet, "lentigo": arguments.start}
    counts: list[Mapping[str, int]] = []
    begin_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        backbones = {arm: without_head(weights, recipe, folder) for arm, weights in starts.items()}
        for seed in range(arguments.seeds):
            rows = draw(pool, arguments.shots, seed)
            counts.append(count_classes(rows))
            for arm, backbone in backbones.items():
                config = load_recipe(RECIPE, [*changes, f"model.weights={backbone}", f"training.seed={seed}"])
                arms[arm].append(train_and_judge(config, rows, judged, folder / "runs"))
                print(f"seed {seed}, {arm}: {time.perf_counter() - begin_s:.0f} s", flush=True)
    result = {
        "command": f"python benchmarks/few_shot.py {arguments.data.name} --start {origin_name(arguments.start)}"
        f" --imagenet {origin_name(arguments.imagenet)} --shots {arguments.shots} --seeds {arguments.seeds}"
        f" --epochs {arguments.epochs} --size {arguments.size}",
        "recipe": RECIPE,
        "recipe_changes": changes,
        "starts": {arm: origin_name(weights) for arm, weights in starts.items()},
        "classifier": "new in both",
        "images_trained_on": counts,
        "n_seeds": arguments.seeds,
        "judged": "one image a lesion of the other half of val",
        "images_judged": count_classes(judged.catalog),
        "caveats": CAVEATS,
        "synthetic": catalog.synthetic,
        **scores(arms),
        "seconds": round(time.perf_counter() - begin_s, 1),
    }
    record(result, arguments.out)


if __name__ == "__main__":
    main()
