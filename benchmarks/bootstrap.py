"""How long do intervals take? All scores of `metrics.estimate`, then those of `clinical`, on drawn predictions.

10000 images of 7500 lesions, classes as frequent as in HAM10000, 2000 resamples of lesions. Prints JSON and, with
--out, writes it. CPU seconds are what an idle core would need: on a shared machine the clock on the wall measures
the neighbours, too.

    python benchmarks/bootstrap.py --out bootstrap.json
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from recording import record

from lentigo.core.predictions import softmax
from lentigo.evaluation.clinical import judge_clinically
from lentigo.evaluation.metrics import Floats, Labels, estimate

CLASS_SHARES = (0.033, 0.051, 0.110, 0.011, 0.111, 0.670, 0.014)
LESIONS_PER_IMAGE = 0.75


def draw(images: int) -> tuple[Labels, Floats, Labels]:
    """Labels (N,), probabilities (N, 7) that are right for about 70%, and lesions (N,)."""
    generator = np.random.default_rng(0)
    labels = generator.choice(7, size=images, p=CLASS_SHARES)
    logits = generator.normal(size=(images, 7))
    logits[np.arange(images), labels] += 2.0
    lesions = round(images * LESIONS_PER_IMAGE)
    return labels, softmax(logits), np.append(np.arange(lesions), generator.integers(lesions, size=images - lesions))


def seconds(work: Callable[[], Any]) -> dict[str, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall_s": round(time.perf_counter() - wall, 2), "cpu_s": round(time.process_time() - cpu, 2)}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    labels, probs, lesions = draw(arguments.images)
    groups = [f"lesion-{number}" for number in lesions]
    estimate(labels[:100], probs[:100], groups[:100], resamples=10)  # first calls load libraries
    result = {
        "benchmark": "bootstrap",
        "images": arguments.images,
        "lesions": len(set(groups)),
        "resamples": arguments.resamples,
        "scores": seconds(lambda: estimate(labels, probs, groups, resamples=arguments.resamples)),
        "clinical_scores": seconds(lambda: judge_clinically(labels, probs, groups, resamples=arguments.resamples)),
        "threads": os.environ.get("OMP_NUM_THREADS", "not limited"),
    }
    record(result, arguments.out)


if __name__ == "__main__":
    main()
