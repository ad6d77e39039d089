"""What judging one and the same network differently changes: views averaged, and the prior correction.

Judges the val images of a run's catalogue with its chosen weights: as its recipe says, in one view, in eight, and
without the prior correction. Prints JSON and, with --out, writes it: scores with intervals and paired differences.

    python benchmarks/judging.py runs/ablation-base-s0 --out results/benchmark-judging.json
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from paired_scores import paired_scores
from recording import record

from lentigo.core.errors import ConfigError
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.cache import open_images
from lentigo.data.dataset import LesionDataset
from lentigo.models.checkpoint import load_checkpoint
from lentigo.training.inference import predict_logits
from lentigo.training.rows import judged_rows
from lentigo.training.run import read_catalog

RECIPE, UNCORRECTED = "as the recipe says", "without prior correction"


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    run = RunDir(arguments.run)
    config, rows = load_recipe(str(run.config)), judged_rows(read_catalog(run), "val")
    network, spec = load_checkpoint(run.best)
    if not spec.logit_shift:
        raise ConfigError(f"expected a run with a prior correction; found none in {run.path}", "Pass another run.")
    dataset = LesionDataset(open_images(rows, spec.preprocess, config.data))
    of_views = {views: predict_logits(network, dataset, views=views) for views in sorted({1, spec.views, 8})}
    shift = np.asarray(spec.logit_shift, dtype=np.float32)
    tables = {RECIPE: of_views[spec.views]}
    tables |= {f"{views} views": table for views, table in of_views.items() if views != spec.views}
    tables[UNCORRECTED] = replace(tables[RECIPE], logits=tables[RECIPE].logits - shift)
    result = {
        "command": f"python benchmarks/judging.py runs/{run.path.name}",
        "split": "val",
        "recipe": config.about.name,
        "views": spec.views,
        "prior_correction": config.loss.prior_correction,
        "synthetic": rows.synthetic,
        **paired_scores(tables, [(RECIPE, name) for name in tables if name != RECIPE]),
    }
    record(result, arguments.out)


if __name__ == "__main__":
    main()
