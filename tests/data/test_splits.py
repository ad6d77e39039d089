"""Splits: disjoint, complete, repeatable, even, and every class in every part."""

from __future__ import annotations

import csv
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import parse_label
from lentigo.data.catalog import Catalog, Row
from lentigo.data.splits import check_group_disjoint, fold_assignment, split_catalog

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def make_catalog(lesions: list[tuple[int, int]]) -> Catalog:
    """`lesions`: (label, number of images) each."""
    return Catalog(
        tuple(
            Row(f"img_{lesion:04d}_{image}", Path("none.jpg"), label, f"lesion_{lesion:04d}")
            for lesion, (label, count) in enumerate(lesions)
            for image in range(count)
        )
    )


lesion_lists = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), min_size=3, max_size=80)


@given(lesion_lists, st.integers(0, 2**31), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_splits_are_disjoint_complete_and_independent_of_row_order(
    lesions: list[tuple[int, int]], seed: int, shuffler: random.Random
) -> None:
    catalog = make_catalog(lesions)
    result = split_catalog(catalog, fractions=FRACTIONS, seed=seed, allow_missing_classes=True)
    assert [replace(row, split="") for row in result] == list(catalog.rows)
    assert {row.split for row in result} == set(FRACTIONS)
    check_group_disjoint(result)
    rows = list(catalog.rows)
    shuffler.shuffle(rows)
    again = split_catalog(Catalog(tuple(rows)), fractions=FRACTIONS, seed=seed, allow_missing_classes=True)
    assert {row.image_id: row.split for row in again} == {row.image_id: row.split for row in result}


@given(lesion_lists, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_classes_with_enough_lesions_are_in_every_split_and_sizes_are_near(
    lesions: list[tuple[int, int]], seed: int
) -> None:
    catalog = make_catalog(lesions)
    result = split_catalog(catalog, fractions=FRACTIONS, seed=seed, allow_missing_classes=True)
    lesions_per_class = Counter(label for label, _ in lesions)
    for label, count in lesions_per_class.items():
        if count >= 3:
            assert {row.split for row in result if row.label == label} == set(FRACTIONS)
    # One lesion of each class may have to be in each part, whatever its share.
    largest = max(count for _, count in lesions)
    for name, fraction in FRACTIONS.items():
        off = len(result.split(name)) - fraction * len(catalog)
        assert abs(off) <= largest * (1 + 2 * len(lesions_per_class))


@given(st.integers(60, 300), st.integers(2, 6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_folds_of_one_class_are_even_within_the_largest_group(lesion_count: int, folds: int, seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 6, lesion_count)
    catalog = make_catalog([(5, int(size)) for size in sizes])
    counts = np.bincount(fold_assignment(catalog, folds, seed), minlength=folds)
    assert counts.sum() == len(catalog)
    assert np.abs(counts - len(catalog) / folds).max() <= sizes.max()


def test_many_lesions_are_split_within_one_lesion_of_every_class() -> None:
    rng = np.random.default_rng(0)
    lesions = [(label, int(rng.integers(1, 4))) for label in range(7) for _ in range(40 * (label + 1))]
    catalog = make_catalog(lesions)
    result = split_catalog(catalog, fractions=FRACTIONS, seed=1)
    for name, fraction in FRACTIONS.items():
        assert np.abs(result.split(name).class_counts - fraction * catalog.class_counts).max() <= 3
        assert abs(len(result.split(name)) - fraction * len(catalog)) <= 3


def test_small_parts_get_their_share_of_lesions_with_many_images() -> None:
    catalog = make_catalog([(5, 6)] * 40 + [(5, 1)] * 160)
    result = split_catalog(catalog, fractions={"train": 0.9, "val": 0.05, "test": 0.05})
    assert Counter(row.split for row in result) == {"train": 360, "val": 20, "test": 20}
    sixth = result.filter(lambda row: row.image_id.endswith("_5"))
    assert Counter(row.split for row in sixth) == {"train": 36, "val": 2, "test": 2}


def test_seeds_give_different_splits() -> None:
    catalog = make_catalog([(5, 1)] * 50)
    one, other = (split_catalog(catalog, fractions=FRACTIONS, seed=seed) for seed in (0, 1))
    assert one.sha256 != other.sha256


def test_groups_join_lesions() -> None:
    catalog = make_catalog([(5, 2)] * 20)
    groups = {row.image_id: f"g{int(row.lesion_id[-4:]) // 4}" for row in catalog}
    result = split_catalog(catalog, fractions=FRACTIONS, groups=groups)
    splits = defaultdict(set)
    for row in result:
        splits[groups[row.image_id]].add(row.split)
    assert len(splits) == 5
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize(
    ("fractions", "words"),
    [
        ({"train": 0.7, "val": 0.2}, "sum 0.9"),
        ({"train": 1.2, "val": -0.2}, "0..1"),
        ({"train": float("nan"), "val": 0.2}, "0..1"),
        ({"train": 0.5, "dev": 0.5}, "'dev'"),
        ({}, "none"),
    ],
)
def test_wrong_fractions_are_refused(fractions: dict[str, float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        split_catalog(make_catalog([(5, 1)] * 9), fractions=fractions)


def test_other_wrong_arguments_are_refused() -> None:
    catalog = make_catalog([(5, 1)] * 9)
    with pytest.raises(DataError, match="at least 2 folds; found 1"):
        fold_assignment(catalog, 1, 0)
    with pytest.raises(DataError, match="found 9 groups"):
        fold_assignment(catalog, 10, 0)
    with pytest.raises(DataError, match="9 of 9 have none"):
        split_catalog(catalog, fractions=FRACTIONS, groups={})
    torn = make_catalog([(5, 2)] * 9)
    with pytest.raises(DataError, match="whole lesions"):
        split_catalog(torn, fractions=FRACTIONS, groups={row.image_id: row.image_id for row in torn})


def test_a_class_with_too_few_lesions_is_named_and_can_be_allowed() -> None:
    catalog = make_catalog([(5, 1)] * 20 + [(3, 4)] * 2)
    with pytest.raises(DataError, match=r"df \(2 groups\) in test") as caught:
        split_catalog(catalog, fractions=FRACTIONS)
    assert "allow_missing_classes" in caught.value.remedy
    result = split_catalog(catalog, fractions=FRACTIONS, allow_missing_classes=True)
    assert len({row.split for row in result if row.label == 3}) == 2


def test_small_and_lopsided_catalogues() -> None:
    with pytest.raises(DataError, match="1 groups"):
        split_catalog(make_catalog([(4, 1)]), fractions=FRACTIONS)
    alone = split_catalog(make_catalog([(4, 1)]), fractions={"train": 1.0})
    assert [row.split for row in alone] == ["train"]
    giant = make_catalog([(5, 100), (5, 1), (5, 1), (4, 1), (4, 1), (4, 1)])
    result = split_catalog(giant, fractions=FRACTIONS)
    assert {row.split for row in result if row.lesion_id == "lesion_0000"} == {"train"}


def test_a_group_in_two_splits_is_an_exception_and_extra_is_training() -> None:
    rows = make_catalog([(5, 2)]).rows
    with pytest.raises(DataError, match=r"lesion_0000 in test\+train"):
        check_group_disjoint(Catalog((replace(rows[0], split="extra"), replace(rows[1], split="test"))))
    check_group_disjoint(Catalog((replace(rows[0], split="extra"), replace(rows[1], split="train"))))


@pytest.mark.real_data
def test_ham10000_is_split_within_one_image_of_every_class(real_data: Path) -> None:
    with (real_data / "ham10000.csv").open(newline="") as stream:
        rows = [
            Row(r["image_id"], real_data / r["file"], parse_label(r["dx"]), r["lesion_id"])
            for r in csv.DictReader(stream)
        ]
    catalog = Catalog(tuple(rows))
    result = split_catalog(catalog, fractions=FRACTIONS, seed=0)
    for name, fraction in FRACTIONS.items():
        assert np.abs(result.split(name).class_counts - fraction * catalog.class_counts).max() < 1
