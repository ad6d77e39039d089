"""Draws: class frequencies, seeds, and shares of the processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lentigo.core.config import AugmentConfig, DataConfig
from lentigo.core.errors import ConfigError
from lentigo.core.seeding import derive_seed
from lentigo.data.augment import Augment
from lentigo.data.cache import open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import TrainingDataset
from lentigo.data.preprocess import Preprocess
from lentigo.data.sampling import EpochBatches, class_weights, epoch_order

COUNTS = np.array([30, 50, 100, 10, 110, 700, 0])
LABELS = np.repeat(np.arange(7), COUNTS)


def test_weights_have_mean_one_and_the_expected_ratios() -> None:
    for strength, power in (("none", 0.0), ("sqrt", 0.5), ("inverse", 1.0)):
        weights = class_weights(LABELS, strength)  # type: ignore[arg-type]
        assert weights[LABELS].mean() == pytest.approx(1.0)
        assert weights[6] == 0.0
        present = weights[:6] * COUNTS[:6] ** power
        np.testing.assert_allclose(present, present[0])


@pytest.mark.parametrize("strength, power", [("sqrt", 0.5), ("inverse", 0.0), ("none", 1.0)])
def test_class_frequencies(strength: str, power: float) -> None:
    draws = np.concatenate([epoch_order(LABELS, strength, 3, epoch) for epoch in range(40)])  # type: ignore[arg-type]
    found = np.bincount(LABELS[draws], minlength=7) / len(draws)
    expected = np.where(COUNTS > 0, COUNTS**power, 0) / (COUNTS[:6] ** power).sum()
    np.testing.assert_allclose(found, expected, atol=0.0 if strength == "none" else 0.01)


def test_without_a_sampler_every_image_comes_once() -> None:
    assert sorted(epoch_order(LABELS, "none", 0, 0)) == list(range(1000))


@pytest.mark.parametrize("strength", ["none", "sqrt", "inverse"])
def test_seed_and_epoch_decide_alone(strength: str) -> None:
    first = epoch_order(LABELS, strength, 1, 2)  # type: ignore[arg-type]
    np.random.default_rng(0).random(100)
    np.testing.assert_array_equal(first, epoch_order(LABELS, strength, 1, 2))  # type: ignore[arg-type]
    assert first.dtype == np.int64
    for seed, epoch in ((1, 3), (2, 2), (2, 1)):
        assert not np.array_equal(first, epoch_order(LABELS, strength, seed, epoch))  # type: ignore[arg-type]


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {
        derive_seed(seed, purpose, *counters)
        for seed in (0, 1)
        for purpose in ("order", "augment", "step", "init")
        # Each purpose has counters of one length: SeedSequence takes (1,) and (1, 0) for the same.
        for counters in ((0, 0), (0, 1), (1, 0), (1, 1))
    }
    assert len(seeds) == 2 * 4 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(st.integers(4, 200), st.sampled_from([1, 2, 3, 4]), st.integers(1, 6), st.integers(0, 3))
def test_shares_of_processes_make_up_each_global_batch(count: int, world: int, share: int, first: int) -> None:
    batch_size = world * share
    order = np.random.default_rng(0).permutation(count)
    if count < batch_size:
        with pytest.raises(ConfigError, match="do not fill one batch"):
            EpochBatches(order, 0, batch_size)
        return
    first = min(first, count // batch_size)
    whole = list(EpochBatches(order, 5, batch_size, first))
    shares = [list(EpochBatches(order, 5, batch_size, first, rank, world)) for rank in range(world)]
    assert len(whole) == len(EpochBatches(order, 5, batch_size, first)) == count // batch_size - first
    for number, batch in enumerate(whole):
        parts = [process[number] for process in shares]
        assert {len(part) for part in parts} == {share}
        together = [draw for part in parts for draw in part]
        assert len(set(together)) == batch_size, "an image twice"
        assert set(together) == set(batch)
        start = (number + first) * batch_size
        assert [draw.index for draw in batch] == order[start : start + batch_size].tolist()
        assert [draw.number for draw in batch] == list(range(5 * count + start, 5 * count + start + batch_size))


def test_a_batch_that_does_not_divide() -> None:
    with pytest.raises(ConfigError, match="batch of 5 does not divide over 2 processes"):
        EpochBatches(np.arange(10), 0, 5, 0, 0, 2)


def test_loader_processes_do_not_change_the_batches(synthetic_catalog: Catalog) -> None:
    catalog = Catalog(synthetic_catalog.rows[:20])
    images = open_images(catalog, Preprocess(resize_steps_px=(32,)), DataConfig())  # type: ignore[call-arg]
    augment = Augment(AugmentConfig(rotation_degrees=90, horizontal_flip=0.5, hue=0.1))  # type: ignore[call-arg]
    data = TrainingDataset(images, augment, seed=1)
    batches = EpochBatches(epoch_order(catalog.labels, "inverse", 1, 0), 0, 4)
    alone, helped = (list(DataLoader(data, batch_sampler=batches, num_workers=workers)) for workers in (0, 2))
    assert len(alone) == len(helped) == 5
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    later = list(DataLoader(data, batch_sampler=EpochBatches(batches.order, 0, 4, 3)))
    assert torch.equal(later[0][0], alone[3][0]), "a resumed epoch draws what the whole one drew"
