"""Robustness: the corrupted images are the ones judged, drops are paired, subsets keep the rare classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as oracle
from torch import Tensor, nn

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.catalog import Catalog, Row
from lentigo.data.corruptions import corrupt
from lentigo.data.images import load_image
from lentigo.data.preprocess import Preprocess
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.robustness import (
    CLEAN,
    CorruptedImages,
    Robustness,
    judge_corrupted,
    predict_corrupted,
    stratified_subset,
)

KINDS = ("hair", "darker")


class Brightness(nn.Module):
    """Logits that follow the mean of the picture's quarters."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.Parameter(torch.randn(12, NUM_CLASSES, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) @ self.weights


@pytest.fixture(scope="module")
def rows(synthetic_catalog: Catalog) -> Catalog:
    """The judged drawings."""
    return synthetic_catalog.split("val")


def preprocess(mode: str = "rgb") -> Preprocess:
    return Preprocess(color_mode=mode, resize_steps_px=(48, 32))  # type: ignore[arg-type]


def table(labels: np.ndarray, answers: np.ndarray, lesions: tuple[str, ...] | None = None) -> Predictions:
    """Predictions that are sure of `answers`."""
    names = tuple(f"image-{i}" for i in range(len(labels)))
    logits = (8.0 * np.eye(NUM_CLASSES)[answers]).astype(np.float32)
    return Predictions(names, lesions or names, labels.astype(np.int64), logits)


def random_cells(count: int = 150, seed: int = 0) -> dict[tuple[str, int], Predictions]:
    """Answers that get worse with severity."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(NUM_CLASSES, size=count)
    cells = {}
    for cell in (CLEAN, *((kind, severity) for kind in KINDS for severity in (1, 3, 5))):
        wrong = generator.random(count) < 0.2 + 0.1 * cell[1]
        cells[cell] = table(labels, np.where(wrong, generator.integers(NUM_CLASSES, size=count), labels))
    return cells


@pytest.mark.parametrize("mode", ["rgb", "gray"])
def test_corruption_comes_between_decoding_and_preprocessing(mode: str, rows: Catalog) -> None:
    contract = preprocess(mode)
    images = CorruptedImages(rows, contract, np.empty(0, np.uint8), "ink", 4, 7)
    row = rows.rows[1]
    picture = np.asarray(load_image(row.path, row.member))
    expected = contract.first_step(Image.fromarray(corrupt(picture, "ink", 4, image_id=row.image_id, seed=7)))
    np.testing.assert_array_equal(np.asarray(images[1]), np.asarray(expected))


def test_predictions_of_every_cell(rows: Catalog) -> None:
    seen: list[tuple[int, int]] = []
    network = Brightness().train()
    cells = predict_corrupted(
        network, preprocess(), rows, kinds=KINDS, severities=(1, 5), progress=lambda *done: seen.append(done)
    )
    assert list(cells) == [CLEAN, ("hair", 1), ("hair", 5), ("darker", 1), ("darker", 5)]
    assert seen == [(len(rows) * (i + 1), len(rows) * 5) for i in range(5)]
    assert network.training
    first = torch.from_numpy(preprocess()(load_image(rows.rows[0].path)))[None]
    np.testing.assert_allclose(cells[CLEAN].logits[0], Brightness()(first)[0].detach(), atol=1e-5)
    moved = {cell: np.abs(one.logits - cells[CLEAN].logits).mean() for cell, one in cells.items()}
    assert moved["darker", 5] > moved["darker", 1] > moved[CLEAN] == 0.0
    assert moved["hair", 5] > moved["hair", 1] > 0.0
    again = predict_corrupted(network, preprocess(), rows, kinds=("hair",), severities=(5,))
    np.testing.assert_array_equal(again["hair", 5].logits, cells["hair", 5].logits)


def test_scores_are_scikit_learns_and_drops_their_differences() -> None:
    cells = random_cells()
    found = judge_corrupted(cells, split="val", n_available=1000, resamples=200)
    assert [one.kind for one in found.kinds] == list(KINDS)
    assert (found.severities, found.n_images, found.n_available) == ((1, 3, 5), 150, 1000)

    def expected(cell: tuple[str, int]) -> tuple[float, float]:
        answers = cells[cell].logits.argmax(axis=1)
        return (
            oracle.accuracy_score(cells[cell].label, answers),
            oracle.balanced_accuracy_score(cells[cell].label, answers),
        )

    clean, means = np.array(expected(CLEAN)), []
    for one in found.kinds:
        scores = np.array([expected((one.kind, severity)) for severity in found.severities])
        means.append(scores.mean(axis=0))
        for m, metric in enumerate(("accuracy", "balanced_accuracy")):
            assert [cell[metric].value for cell in one.by_severity] == pytest.approx(scores[:, m])
            assert one.mean[metric].value == pytest.approx(scores[:, m].mean())
            assert one.drop[metric].value == pytest.approx(clean[m] - scores[:, m].mean())
            assert one.drop[metric].ci_low < one.drop[metric].value < one.drop[metric].ci_high
    assert found.drop["balanced_accuracy"].value == pytest.approx(clean[1] - np.mean(means, axis=0)[1])
    assert found.mean["accuracy"].value == pytest.approx(np.mean(means, axis=0)[0])
    assert found.clean["accuracy"].value == pytest.approx(clean[0])


def test_drops_are_paired() -> None:
    """Where all answers but few stay, the drop is far surer than either score."""
    generator = np.random.default_rng(1)
    labels = generator.integers(NUM_CLASSES, size=400)
    answers = np.where(generator.random(400) < 0.5, labels, (labels + 1) % NUM_CLASSES)
    worse = np.where(np.arange(400) % 40 == 0, (labels + 1) % NUM_CLASSES, answers)
    found = judge_corrupted(
        {CLEAN: table(labels, answers), ("hair", 1): table(labels, worse)}, split="val", resamples=300
    )

    def width(estimate: Estimate) -> float:
        return estimate.ci_high - estimate.ci_low

    assert width(found.drop["accuracy"]) < 0.35 * width(found.clean["accuracy"])


def test_nothing_lost_is_a_drop_of_zero_without_interval() -> None:
    labels = np.arange(70) % NUM_CLASSES
    answers = np.where(np.arange(70) % 3 == 0, labels, 0)
    same = table(labels, answers)
    found = judge_corrupted({CLEAN: same, ("hair", 1): same, ("hair", 2): same, ("hair", 3): same}, split="val",
                            resamples=100)  # fmt: skip
    assert found.drop["balanced_accuracy"] == Estimate(0.0, None, None, 70)


def test_one_lesion_has_no_interval() -> None:
    labels = np.arange(30) % NUM_CLASSES
    one = table(labels, labels, ("a",) * 30)
    found = judge_corrupted({CLEAN: one, ("hair", 1): one}, split="val", resamples=50)
    assert found.clean["accuracy"] == Estimate(1.0, None, None, 30)


def test_json_comes_back() -> None:
    found = judge_corrupted(random_cells(60), split="val", resamples=50, synthetic=True)
    assert Robustness.model_validate(found.as_dict()) == found
    assert found.notice


def test_missing_cells_and_other_images_are_refused() -> None:
    cells = random_cells(30)
    without = {cell: one for cell, one in cells.items() if cell != ("darker", 3)}
    with pytest.raises(DataError, match="missing: darker 3"):
        judge_corrupted(without, split="val")
    with pytest.raises(DataError, match="clean 0"):
        judge_corrupted({("hair", 1): cells["hair", 1]}, split="val")
    with pytest.raises(DataError, match="any corruption"):
        judge_corrupted({CLEAN: cells[CLEAN]}, split="val")
    other = replace(cells["hair", 1], image_id=tuple(f"other-{i}" for i in range(30)))
    with pytest.raises(DataError, match="others under hair 1"):
        judge_corrupted(cells | {("hair", 1): other}, split="val")


@pytest.mark.parametrize(("kinds", "severities"), [(("fog",), (1,)), (("hair",), (6,)), ((), (1,)), (("hair",), ())])
def test_unknown_or_no_corruptions_are_refused(
    kinds: tuple[str, ...], severities: tuple[int, ...], rows: Catalog
) -> None:
    with pytest.raises(ConfigError, match="expected kinds"):
        predict_corrupted(Brightness(), preprocess(), rows, kinds=kinds, severities=severities)


def unbalanced(counts: tuple[int, ...]) -> Catalog:
    """Rows with these numbers of images a class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return Catalog(tuple(Row(f"i{i}", Path("x"), int(label), f"i{i}") for i, label in enumerate(labels)))


@pytest.mark.parametrize("max_images", [61, 62, 100, 250, 333, 999])
def test_subsets_keep_shares_and_rare_classes(max_images: int) -> None:
    counts = np.array([36, 60, 102, 15, 97, 670, 20])
    catalog = unbalanced(tuple(counts))
    if max_images < 70:
        with pytest.raises(ConfigError, match="expected 70 images or more"):
            stratified_subset(catalog, max_images)
        return
    found = stratified_subset(catalog, max_images)
    assert len(found) == max_images
    assert (found.class_counts >= np.minimum(counts, 10)).all()
    assert (found.class_counts <= counts).all()
    shares = max_images * counts / 1000
    excess = np.maximum(10 - shares, 0).sum()
    assert (np.abs(found.class_counts - np.maximum(shares, 10)) <= excess + 1).all()


def test_subsets_are_seeded_and_blind_to_order() -> None:
    catalog = unbalanced((40, 40, 40, 40, 40, 40, 40))
    first = stratified_subset(catalog, 100, seed=1)
    assert first.rows == stratified_subset(catalog, 100, seed=1).rows
    assert first.rows != stratified_subset(catalog, 100, seed=2).rows
    backwards = stratified_subset(replace(catalog, rows=catalog.rows[::-1]), 100, seed=1)
    assert set(backwards.rows) == set(first.rows)
    assert stratified_subset(catalog, None) is catalog
    assert stratified_subset(catalog, 280) is catalog
