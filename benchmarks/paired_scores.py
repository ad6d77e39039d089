"""Scores of several predictions of the same images, and their paired differences, for the benchmarks' results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lentigo.core.predictions import Predictions
from lentigo.evaluation.arms import align
from lentigo.evaluation.compare import paired_differences
from lentigo.evaluation.resampling import arm_estimates, mean_scores, resampled_scores

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
RESAMPLES, SEED = 2000, 0


def paired_scores(tables: Mapping[str, Predictions], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """METRICS of every table, and of every pair the second less the first, resampled by lesion; n with each."""
    aligned = align({name: [table] for name, table in tables.items()})
    points, samples = mean_scores(aligned), resampled_scores(aligned, resamples=RESAMPLES, seed=SEED)
    estimates = arm_estimates(aligned, points, samples)
    n_lesions = len(set(aligned.lesion_id))

    def difference(metric: str, baseline: str, other: str) -> dict[str, Any]:
        """As `lentigo compare` tests two systems."""
        pair = {name: points[name] for name in (baseline, other)}
        found = paired_differences(metric, baseline, pair, samples, n_lesions)[other]
        return found.model_dump(include={"value", "ci_low", "ci_high", "p"})

    return {
        "n_images": len(aligned.image_id),
        "n_lesions": n_lesions,
        "interval": "95% paired bootstrap of lesions",
        "resamples": RESAMPLES,
        "scores": {name: {metric: asdict(found[metric]) for metric in METRICS} for name, found in estimates.items()},
        "differences": {
            f"{other} less {baseline}": {metric: difference(metric, baseline, other) for metric in METRICS}
            for baseline, other in pairs
        },
    }
