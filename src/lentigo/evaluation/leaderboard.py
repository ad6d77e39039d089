"""Judged runs side by side: scores with intervals, a paired test against the best, and what each costs.

Runs on other rows (catalogue digests) stand in tables of their own: their scores cannot be compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir, list_ensembles, list_runs
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.evaluation.arms import align, check_split, is_synthetic
from lentigo.evaluation.compare import Difference, paired_differences
from lentigo.evaluation.ensemble import Member, describe_member, read_ensemble
from lentigo.evaluation.intervals import LESION_BOOTSTRAP
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.resampling import (
    LOWER_IS_BETTER,
    arm_estimates,
    check_metric,
    mean_scores,
    resampled_scores,
)
from lentigo.evaluation.scores import Scores
from lentigo.models.cost import Cost, Latency, architecture_cost, measure_latency, total_cost


class LeaderboardRow(BaseModel):
    """One run, or one ensemble of several `members`.

    `scores` maps resampling.METRICS to estimates. `against_best` is this run minus the best one in the metric that
    sorts, None for the best; its `p_holm` is corrected over all rows of the table. `training_min` adds up the members'
    own trainings, each on its own machine, without parents and teachers.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    members: tuple[Member, ...]
    scores: dict[str, Estimate]
    against_best: Difference | None
    cost: Cost
    latency: Latency | None
    training_min: float | None
    test_looks: int


class Leaderboard(Scores):
    """All judged runs on one catalogue, the best first. The best was chosen by these scores: they flatter it."""

    split: str
    metric: str
    rows_sha256: str
    n_images: int
    n_lesions: int
    resamples: int
    seed: int
    interval: str
    rows: tuple[LeaderboardRow, ...]


class Leaderboards(BaseModel):
    """One table per catalogue, that of most runs first, and the folders left out: name -> why."""

    model_config = ConfigDict(frozen=True)

    tables: tuple[Leaderboard, ...]
    left_out: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return self.model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A judged folder and the runs that its answers come from."""

    name: str
    run: RunDir
    members: tuple[Member, ...]
    predictions: Predictions


def leaderboard(
    root: Path,
    *,
    split: str = "val",
    metric: str = "balanced_accuracy",
    resamples: int = 2000,
    seed: int = 0,
    latency: bool = False,
) -> Leaderboards:
    """Every run and ensemble below `root` that was judged on `split`; no split is opened and no image read.

    `latency` builds every network once more, with random weights, and times it on this machine.

    Raises:
        ConfigError: for an unknown metric or a split that is not judged.
        DataError: where predictions are damaged, or differ in images, labels or lesions though the rows are the same.
        MissingExtraError: for a timm network without timm.
    """
    check_metric(metric)
    check_split(split)
    entries: dict[str, list[_Entry]] = defaultdict(list)
    left_out: dict[str, str] = {}
    for run in [*list_runs(root), *list_ensembles(root)]:
        reason = _why_left_out(run, split)
        if reason:
            left_out[run.path.name] = reason
            continue
        entry = _Entry(run.path.name, run, _members(run), Predictions.from_csv(run.predictions(split)))
        entries[run.catalog_digest.read_text(encoding="utf-8").strip()].append(entry)
    tables = [
        _table(found, rows_sha256, split, metric, resamples, seed, latency) for rows_sha256, found in entries.items()
    ]
    tables.sort(key=lambda table: (-len(table.rows), table.rows_sha256))
    return Leaderboards(tables=tuple(tables), left_out=left_out)


def _why_left_out(run: RunDir, split: str) -> str:
    if not run.predictions(split).is_file():
        return f"not judged on {split}"
    return "" if run.catalog_digest.is_file() else f"no {run.catalog_digest.name}"


def _members(run: RunDir) -> tuple[Member, ...]:
    if run.ensemble.is_file():
        return read_ensemble(run.path).members
    return (describe_member(run),)


def _table(
    entries: list[_Entry], rows_sha256: str, split: str, metric: str, resamples: int, seed: int, latency: bool
) -> Leaderboard:
    aligned = align({entry.name: [entry.predictions] for entry in entries}, least=1)
    points, n_lesions = mean_scores(aligned), len(set(aligned.lesion_id))
    samples = resampled_scores(aligned, resamples=resamples, seed=seed)
    scores = arm_estimates(aligned, points, samples)
    ordered = sorted(entries, key=lambda entry: _rank(points[entry.name], metric))
    best = ordered[0].name
    against_best = paired_differences(metric, best, points, samples, n_lesions)
    rows = [
        LeaderboardRow(
            name=entry.name,
            members=entry.members,
            scores=scores[entry.name],
            against_best=against_best.get(entry.name),
            cost=_cost(entry.members),
            latency=_latency(entry.members) if latency else None,
            training_min=_training_min(entry.members),
            test_looks=len(entry.run.read_looks()),
        )
        for entry in ordered
    ]
    return Leaderboard(
        split=split,
        metric=metric,
        rows_sha256=rows_sha256,
        n_images=len(aligned.image_id),
        n_lesions=n_lesions,
        resamples=resamples,
        seed=seed,
        interval=LESION_BOOTSTRAP,
        rows=tuple(rows),
        synthetic=any(is_synthetic(entry.run.predictions(split)) for entry in entries),
    )


def _rank(scores: Mapping[str, float], metric: str) -> tuple[bool, float]:
    """Sorts the best first and the undefined last."""
    score = scores[metric]
    return bool(np.isnan(score)), score if metric in LOWER_IS_BETTER else -score


def _cost(members: tuple[Member, ...]) -> Cost:
    return total_cost(
        architecture_cost(member.architecture, member.input_size_px, NUM_CLASSES, member.views) for member in members
    )


def _latency(members: tuple[Member, ...]) -> Latency:
    """Of the members one after the other: their medians and quartiles added up."""
    each = [_measured(one.architecture, one.input_size_px, one.views, one.channels_last) for one in members]
    return Latency(
        median_ms=sum(one.median_ms for one in each),
        low_ms=sum(one.low_ms for one in each),
        high_ms=sum(one.high_ms for one in each),
        n=each[0].n,
        threads=each[0].threads,
    )


@cache
def _measured(architecture: str, size_px: int, views: int, channels_last: bool) -> Latency:
    """Once per kind of network: the weights do not change the time."""
    import torch

    from lentigo.models.network import build_network

    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = build_network(architecture, NUM_CLASSES).to(memory_format=layout)
    return measure_latency(network, size_px, views=views, channels_last=channels_last)


def _training_min(members: tuple[Member, ...]) -> float | None:
    each = [member.training_min for member in members]
    return None if None in each else sum(minutes for minutes in each if minutes is not None)
