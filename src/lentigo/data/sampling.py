"""Which image comes when: class-balanced draws, seeded, sharded over processes without repeats, resumable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lentigo.core.config import Strength
from lentigo.core.errors import ConfigError
from lentigo.core.seeding import derive_seed
from lentigo.core.taxonomy import NUM_CLASSES

_POWER: dict[Strength, float] = {"none": 0.0, "sqrt": 0.5, "inverse": 1.0}


class Draw(NamedTuple):
    """One image in one epoch; `number` counts all draws of the run and seeds the augmentation."""

    index: int  # type: ignore[assignment]
    number: int


def class_weights(labels: NDArray[np.int64], strength: Strength) -> NDArray[np.float64]:
    """Weight per class (7,), proportional to count^-power with mean 1 over the images; absent classes get 0."""
    counts = np.bincount(labels, minlength=NUM_CLASSES).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -_POWER[strength], 0.0)
    result: NDArray[np.float64] = weights * counts.sum() / (weights * counts).sum()
    return result


def draw_probabilities(
    labels: NDArray[np.int64], strength: Strength, factors: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Probability (N,) of each image at each draw: its class's weight times its own factor (>= 0), which may be 0.

    Classes are counted over the images that can be drawn.
    """
    kept = np.ones(len(labels)) if factors is None else factors
    weights = class_weights(labels[kept > 0], strength)[labels] * kept
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def epoch_order(
    labels: NDArray[np.int64],
    strength: Strength,
    seed: int,
    epoch: int,
    factors: NDArray[np.float64] | None = None,
    draws: int = 0,
) -> NDArray[np.int64]:
    """Indices (M,) of one epoch; M is `draws`, or the number of images with a factor above 0.

    Without sampler and factors an epoch is a permutation; else its draws are weighted, with replacement. Equal
    factors are no exception: rounds of hard mining and their controls must differ in nothing but the factors.
    """
    generator = np.random.default_rng(derive_seed(seed, "order", epoch))
    if strength == "none" and factors is None:
        return generator.permutation(len(labels)).astype(np.int64)
    count = draws or (len(labels) if factors is None else int((factors > 0).sum()))
    probabilities = draw_probabilities(labels, strength, factors)
    return generator.choice(len(labels), size=count, replace=True, p=probabilities).astype(np.int64)


@dataclass(frozen=True)
class EpochBatches:
    """Batches of one epoch for one process: process r of W takes every W-th draw of each global batch.

    The incomplete last batch is dropped, so that every step has the same weight; other images fall out each epoch.
    """

    order: NDArray[np.int64]
    epoch: int
    batch_size: int
    first_batch: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise ConfigError(
                f"the global batch of {self.batch_size} does not divide over {self.world_size} processes",
                "Set training.batch_size to a multiple of devices x nodes.",
            )
        if len(self.order) < self.batch_size:
            raise ConfigError(
                f"{len(self.order)} training images do not fill one batch of {self.batch_size}",
                f"Pass --set training.batch_size={max(1, len(self.order))} or less, or add images.",
            )

    @property
    def batches_per_epoch(self) -> int:
        """Steps of a whole epoch."""
        return len(self.order) // self.batch_size

    def __len__(self) -> int:
        return self.batches_per_epoch - self.first_batch

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in range(self.first_batch, self.batches_per_epoch):
            start = batch * self.batch_size
            positions = range(start + self.rank, start + self.batch_size, self.world_size)
            yield [Draw(int(self.order[p]), self.epoch * len(self.order) + p) for p in positions]
