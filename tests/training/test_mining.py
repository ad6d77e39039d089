"""Hard mining: hardness, the noise screen, what each method and control draws, and whole rounds on a tiny network."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch.nn import functional

from lentigo.core.config import MiningConfig
from lentigo.core.errors import CheckpointError, ConfigError, DataError, Stopped
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe, merge_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset
from lentigo.data.duplicates import known_groups
from lentigo.data.sampling import class_weights, draw_probabilities, epoch_order
from lentigo.models.checkpoint import load_tensors
from lentigo.training import out_of_fold
from lentigo.training.devices import Devices
from lentigo.training.events import Event, Message, StepDone
from lentigo.training.loop import Outcome, Trainer
from lentigo.training.mining import (
    choose_boost,
    choose_hard_only,
    measure_hardness,
    neighbor_agreement,
    screen_noise,
)
from lentigo.training.mining_run import merge_round, mine_run, round_config
from lentigo.training.mining_table import RoundTable, ramped
from lentigo.training.rows import training_rows
from lentigo.training.run import start_run
from lentigo.training.state import config_digest

MINING = MiningConfig(method="out_of_fold")  # type: ignore[call-arg]


def predictions_of(probs: np.ndarray, labels: list[int]) -> Predictions:
    """A table whose softmax gives `probs` (N, 7)."""
    count = len(labels)
    ids = tuple(f"image-{i}" for i in range(count))
    logits = np.log(np.maximum(probs, 1e-9)).astype(np.float32)
    return Predictions(ids, tuple(f"lesion-{i}" for i in range(count)), np.array(labels), logits)


def random_table(count: int = 400, seed: int = 0, agreement: float = 0.5) -> RoundTable:
    generator = np.random.default_rng(seed)
    labels = generator.choice(7, size=count, p=[0.04, 0.05, 0.1, 0.02, 0.1, 0.66, 0.03]).tolist()
    tables = [predictions_of(generator.dirichlet(np.ones(7), size=count), labels) for _ in range(2)]
    return measure_hardness(tables, [np.full(count, agreement)] * 2)


def ids_of(rows: Catalog) -> tuple[str, ...]:
    return tuple(row.image_id for row in rows)


def test_hardness_by_hand() -> None:
    first = predictions_of(np.array([[0.8, 0.2, 0, 0, 0, 0, 0], [0.1, 0.9, 0, 0, 0, 0, 0]]), [0, 0])
    second = predictions_of(np.array([[0.6, 0.4, 0, 0, 0, 0, 0], [0.3, 0.7, 0, 0, 0, 0, 0]]), [0, 0])
    table = measure_hardness([first, second], [np.array([1.0, 0.2]), np.array([0.9, 0.0])])
    np.testing.assert_allclose(table.mean_confidence, [0.7, 0.2], atol=1e-6)
    np.testing.assert_allclose(table.hardness, [0.3, 0.8], atol=1e-6)
    np.testing.assert_allclose(table.variability, [0.1, 0.1], atol=1e-6)
    np.testing.assert_allclose(table.margin, [0.4, -0.6], atol=1e-6)
    np.testing.assert_allclose(table.el2n, [np.sqrt(2) * 0.3, np.sqrt(2) * 0.8], atol=1e-6)
    np.testing.assert_allclose(table.wrong_confidence, [0.0, 0.7], atol=1e-6)
    np.testing.assert_allclose(table.agreement, [0.9, 0.0])
    assert table.answered.tolist() == [0, 1]


def test_models_that_disagree_on_the_wrong_class_make_no_suspect() -> None:
    first = predictions_of(np.eye(7)[[1]], [0])
    second = predictions_of(np.eye(7)[[2]], [0])
    assert measure_hardness([first, second]).wrong_confidence.tolist() == [0.0]


def test_neighbor_agreement_is_the_share_of_the_own_label() -> None:
    reference = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], np.float32)
    share = neighbor_agreement(
        np.array([[5, 0], [0, 2]], np.float32), np.array([0, 0]), reference, np.array([0, 1, 1, 1]), 2
    )
    assert share.tolist() == [0.5, 0.0]


def test_noise_screen_needs_models_and_neighbours() -> None:
    probs = np.eye(7)[[1, 1, 0]]
    table = measure_hardness([predictions_of(probs, [0, 0, 0])], [np.array([0.0, 0.5, 0.0])])
    assert screen_noise(table, MINING).suspect.tolist() == [True, False, False]


def test_boost_is_capped_bounded_and_never_for_suspects() -> None:
    table = random_table()
    hardest = int(np.argmax(table.hardness))
    suspect = np.zeros(len(table), np.bool_)
    suspect[hardest] = True
    chosen = choose_boost(replace(table, suspect=suspect), MINING, "sqrt", seed=0)
    assert chosen.weight[hardest] == 1
    assert chosen.weight.max() <= MINING.boost_cap
    boosted = chosen.weight > 1
    unboosted_share = draw_probabilities(table.label, "sqrt")[boosted].sum()
    share = draw_probabilities(table.label, "sqrt", chosen.weight)[boosted].sum()
    assert unboosted_share <= MINING.hard_fraction
    assert unboosted_share < share <= MINING.max_hard_share + 1e-9
    tight = MINING.model_copy(update={"max_hard_share": 0.15})
    chosen = choose_boost(table, tight, "sqrt", seed=0)
    assert draw_probabilities(table.label, "sqrt", chosen.weight)[chosen.weight > 1].sum() == pytest.approx(0.15)


def test_no_boost_is_above_its_cap() -> None:
    table = random_table()
    mining = MINING.model_copy(update={"boost_cap": 1.5, "max_hard_share": 1.0})
    hard = choose_boost(table, mining.model_copy(update={"boost_cap": 99.0}), "sqrt", seed=0).weight
    assert (hard[hard > 1] > 1.5).any()
    np.testing.assert_array_equal(choose_boost(table, mining, "sqrt", seed=0).weight, np.minimum(hard, 1.5))


def test_controls_of_the_boost() -> None:
    table = random_table()
    ours = choose_boost(table, MINING, "sqrt", seed=0)

    def control(name: str) -> RoundTable:
        return choose_boost(table, MINING.model_copy(update={"control": name}), "sqrt", seed=0)

    assert (control("continuation").weight == 1).all()
    randomly = control("random").weight
    assert sorted(randomly) == sorted(ours.weight)
    assert (randomly != ours.weight).any()
    shuffled = control("shuffled").weight
    assert (shuffled != ours.weight).any()
    for label in range(7):
        mine = table.label == label
        assert sorted(shuffled[mine]) == sorted(ours.weight[mine])
    assert ((control("hard_only").weight > 0) == (ours.weight > 1)).all()


def test_reports_way_takes_wrong_and_unsure_images_alone() -> None:
    probs = np.array([[0.9, 0.1, 0, 0, 0, 0, 0], [0.55, 0.45, 0, 0, 0, 0, 0], [0.2, 0.8, 0, 0, 0, 0, 0]])
    mining = MiningConfig(method="report", confidence_threshold=0.6)  # type: ignore[call-arg]
    chosen = choose_hard_only(measure_hardness([predictions_of(probs, [0, 0, 0])]), mining, seed=0)
    assert chosen.weight.tolist() == [0, 1, 1]
    assert chosen.why == ("not hard", "low confidence", "wrong answer")
    with pytest.raises(DataError, match="no hard images"):
        choose_hard_only(measure_hardness([predictions_of(probs[:1], [0])]), mining, seed=0)


def test_table_survives_the_file(tmp_path: Path) -> None:
    table = choose_boost(random_table(), MINING, "sqrt", seed=1)
    read = RoundTable.from_csv(table.to_csv(tmp_path / "round-1.csv"))
    assert list(read.hardness) == sorted(read.hardness, reverse=True)
    for name, column in table.__dict__.items():
        found = dict(zip(read.image_id, getattr(read, name), strict=True))
        assert [found[image_id] for image_id in table.image_id] == list(column), name
    (tmp_path / "round-1.csv").write_text("image_id\n1\n", encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        RoundTable.from_csv(tmp_path / "round-1.csv")


def test_a_table_of_other_labels_or_lesions_is_refused(tiny: ModuleType, tiny_catalog: Catalog) -> None:
    rows = training_rows(tiny_catalog, tiny.make_config())
    probs = np.full((len(rows), 7), 1 / 7)
    table = replace(
        measure_hardness([predictions_of(probs, rows.labels.tolist())]),
        image_id=ids_of(rows),
        lesion_id=tuple(row.lesion_id for row in rows),
    )
    assert ids_of(rows) == table.ordered(replace(rows, rows=rows.rows[::-1])).image_id[::-1]
    for change in ({"label": (rows.rows[2].label + 1) % 7}, {"lesion_id": "another"}):
        changed = replace(rows, rows=(*rows.rows[:2], replace(rows.rows[2], **change), *rows.rows[3:]))
        with pytest.raises(DataError, match=f"for 1 of its {len(rows)} images: {rows.rows[2].image_id}") as raised:
            table.ordered(changed)
        assert "lentigo mine" in raised.value.remedy


def test_factors_decide_what_is_drawn() -> None:
    labels = np.array([0] * 50 + [5] * 150)
    factors = np.ones(200)
    factors[:10], factors[100:] = 3.0, 0.0
    order = epoch_order(labels, "sqrt", seed=0, epoch=0, factors=factors, draws=40_000)
    drawn = np.bincount(order, minlength=200) / len(order)
    assert drawn[100:].max() == 0
    assert drawn[:10].mean() / drawn[10:50].mean() == pytest.approx(3, rel=0.05)
    expected = class_weights(labels[:100], "sqrt")
    assert drawn[10:50].mean() / drawn[50:100].mean() == pytest.approx(expected[0] / expected[5], rel=0.05)
    alone = np.where(np.arange(200) < 30, 1.0, 0.0)
    order = epoch_order(labels, "none", seed=0, epoch=0, factors=alone)
    assert len(order) == 30
    assert order.max() < 30


def test_boost_ramps_in_and_a_set_drawn_alone_does_not() -> None:
    factors = np.array([1.0, 3.0])
    seen = [float(ramped(factors, epoch, 4, MINING)[1]) for epoch in range(4)]
    assert seen == [2.0, 3.0, 3.0, 3.0]
    assert ramped(np.array([0.0, 1.0]), 0, 4, MINING).tolist() == [0.0, 1.0]


def test_recipes_merge_over_a_run() -> None:
    base = load_recipe("paper-v2", ["model.dropout=0.4", "training.seed=7"])
    merged = merge_recipe(base, "mine", ["training.epochs=2"])
    assert merged.model.dropout == 0.4
    assert merged.training.seed == 7
    assert merged.training.epochs == 2
    assert merged.mining.method == "out_of_fold"
    assert merged.about.name == "mine"
    assert merged.about.changes == ("training.epochs",)


# --- Whole rounds -------------------------------------------------------------------------------------------


@pytest.fixture
def parent(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> RunDir:
    config = tiny.make_config(training={"selection_metric": "last"})
    run, _ = tiny.start(config, tiny_catalog, tmp_path / "runs", "parent")
    return run


FOLDS = ["mining.folds=2", "mining.fold_epochs=1", "mining.fold_size_px=0"]
SHORT = ["training.epochs=2", "training.batch_size=4"]
QUICK = [*FOLDS, *SHORT]


def mine(
    tiny: ModuleType, parent: RunDir, name: str, recipe: str = "mine", listen: object = None, **options: object
) -> tuple[RunDir, Outcome]:
    settings = {"control": None, "overrides": QUICK, "hardness": None} | options
    return mine_run(
        parent,
        recipe,
        root=parent.path.parent,
        name=name,
        where=Devices("cpu"),
        score=tiny.score,
        listen=listen or (lambda event: None),  # type: ignore[arg-type]
        **settings,  # type: ignore[arg-type]
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("control", ["none", "random", "shuffled", "hard_only"])
def test_no_hard_image_is_an_error_and_no_crash(control: str) -> None:
    table = random_table()
    mining = MINING.model_copy(update={"control": control, "hard_fraction": 1e-6})
    with pytest.raises(DataError, match="no hard images: 0 of 400 are suspect"):
        choose_boost(table, mining, "sqrt", seed=0)
    suspects = replace(table, suspect=np.ones(len(table), np.bool_))
    with pytest.raises(DataError, match="no hard images: 400 of 400 are suspect"):
        choose_boost(suspects, MINING.model_copy(update={"control": control}), "sqrt", seed=0)


def test_a_round_without_boost_needs_no_hard_image() -> None:
    for update in ({"hard_fraction": 0.0}, {"hard_fraction": 1e-6, "control": "continuation"}):
        chosen = choose_boost(random_table(), MINING.model_copy(update=update), "sqrt", seed=0)
        assert (chosen.weight == 1).all()
    nothing = MINING.model_copy(update={"hard_fraction": 0.0, "control": "hard_only"})
    with pytest.raises(DataError, match="no hard images"):
        choose_boost(random_table(), nothing, "sqrt", seed=0)


def test_a_round_keeps_the_loss_of_its_run() -> None:
    adjusted = load_recipe("paper-v2", ["training.sampler=none", "loss.kind=logit_adjusted"])
    assert merge_round(adjusted, "mine", ["training.sampler=none"]).loss.kind == "logit_adjusted"
    other = ["training.sampler=none", "loss.logit_adjustment=0.5"]
    with pytest.raises(ConfigError, match=r"a logit adjustment of 1 and the round one of 0\.5") as caught:
        merge_round(adjusted, "mine", other)
    assert "--set distillation.weight=0" in caught.value.remedy
    assert merge_round(adjusted, "mine", [*other, "distillation.weight=0"]).loss.logit_adjustment == 0.5
    with pytest.raises(ConfigError, match="put back the class prior"):
        merge_round(adjusted, "mine", ["training.sampler=none", "distillation.teachers=['other.safetensors']"])
    focal = load_recipe("paper-v2", ["loss.kind=focal"])
    with pytest.raises(ConfigError, match=r"set loss\.label_smoothing = 0"):
        merge_round(focal, "mine", [])
    assert merge_round(focal, "mine", ["loss.label_smoothing=0"]).loss.kind == "focal"


def test_loss_and_prior_count_the_images_that_a_round_draws(tiny: ModuleType, tiny_catalog: Catalog) -> None:
    config = tiny.make_config(
        training={"sampler": "none"}, loss={"class_weights": "inverse", "prior_correction": 1.0},
        mining={"method": "report"},
    )  # fmt: skip
    train = training_rows(tiny_catalog, config)
    probs = np.full((len(train), 7), 1 / 7)
    lesions = tuple(row.lesion_id for row in train)
    measured = measure_hardness([predictions_of(probs, train.labels.tolist())])
    table = replace(measured, image_id=ids_of(train), lesion_id=lesions)
    drawn = np.arange(len(train)) % 3 > 0
    chosen = table.weighted(drawn.astype(np.float64), [""] * len(train))
    fabric = Fabric(accelerator="cpu", devices=1)
    trainer = Trainer(config, tiny_catalog, fabric, tiny.score, lambda event: None, table=chosen)
    weights = torch.from_numpy(class_weights(train.labels[drawn], "inverse")).float()
    labels = torch.from_numpy(train.labels[drawn])
    logits = torch.randn(len(labels), 7, generator=torch.Generator().manual_seed(0))
    expected = functional.cross_entropy(logits, labels, weights, reduction="sum") / len(labels)
    assert trainer.loss(logits, labels).item() == pytest.approx(expected.item())
    assert trainer.shift is not None
    assert trainer.shift.abs().max().item() == pytest.approx(0, abs=1e-6), "these weights balance what is drawn"


def test_folds_depend_on_groups_and_their_key_says_so(tiny: ModuleType, tiny_catalog: Catalog) -> None:
    config = tiny.make_config(mining={"method": "out_of_fold"})
    rows = training_rows(tiny_catalog, config)
    fold_config = out_of_fold._fold_config(config)

    def key(rows: Catalog) -> str:
        groups = dict(zip(ids_of(rows), known_groups(rows.rows), strict=True))
        return out_of_fold._key(fold_config, config, rows, groups)

    mining = config.mining
    facts = (config_digest(fold_config), mining.folds, mining.fold_seeds, mining.neighbors, rows.sha256)
    assert key(rows) == f"out-of-fold-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}", "as it always was"
    pairs = replace(rows, rows=tuple(replace(row, group_id=f"g{i // 2}") for i, row in enumerate(rows)))
    threes = replace(rows, rows=tuple(replace(row, patient_id=f"p{i // 3}") for i, row in enumerate(rows)))
    assert len({key(rows), key(pairs), key(threes)}) == 3


def test_folds_choose_no_rows_of_their_own(tiny: ModuleType) -> None:
    config = tiny.make_config(data={"exclude_images": ["a"], "train_splits": ["extra"]})
    assert out_of_fold._fold_config(config).data == tiny.make_config().data
    both = tiny.make_config(data={"train_splits": ["train", "extra"]})
    assert out_of_fold._fold_config(both).data == both.data, "the key of folds that are there stays"


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "extra"])
def test_round_on_chosen_rows(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path, split: str) -> None:
    rows = [replace(row, split=split) if row.split == "train" else row for row in tiny_catalog]
    left_out = rows[0].image_id
    # One patient with three lesions, of which the last is known by the second's group alone.
    rows[1] = replace(rows[1], patient_id="p")
    rows[2] = replace(rows[2], patient_id="p", group_id="g")
    rows[3] = replace(rows[3], group_id="g")
    joined = {row.image_id for row in rows[1:4]}
    data = {"train_splits": [split], "exclude_images": [left_out]}
    config = tiny.make_config(training={"selection_metric": "last"}, data=data)
    parent, _ = tiny.start(config, replace(tiny_catalog, rows=tuple(rows)), tmp_path / "runs", "parent")
    run, outcome = mine(tiny, parent, "mined")
    assert outcome.finished == "done"
    assert len(read_rows(run.mining_rounds[0])) == 25
    for fold in parent.mining.glob("out-of-fold-*/seed-*"):
        fold_rows = read_rows(fold / "catalog.csv")
        assert left_out not in {row["image_id"] for row in fold_rows}
        assert len({row["split"] for row in fold_rows if row["image_id"] in joined}) == 1


@pytest.mark.slow
def test_a_logit_adjusted_run_teaches_its_round(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    plain = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0}
    training = {"selection_metric": "last", "sampler": "none"}
    config = tiny.make_config(training=training, regularization=plain, loss={"kind": "logit_adjusted"})
    parent, _ = tiny.start(config, tiny_catalog, tmp_path / "runs", "parent")
    run, outcome = mine(tiny, parent, "mined", overrides=[*QUICK, "training.sampler=none"])
    assert outcome.finished == "done"
    assert load_recipe(str(run.config)).distillation.teachers == (str(parent.best.resolve()),)
    assert round_config(run, "mine", ["training.sampler=none"]).model.weights == str(run.best.resolve())


@pytest.mark.slow
def test_round_of_our_mining(tiny: ModuleType, parent: RunDir, tiny_catalog: Catalog) -> None:
    run, outcome = mine(tiny, parent, "mined")
    assert outcome.finished == "done"
    config = load_recipe(str(run.config))
    train = training_rows(tiny_catalog, config)
    rows = read_rows(run.mining / "round-1.csv")
    assert {row["image_id"] for row in rows} == {row.image_id for row in train}
    assert config.mining.draws_per_epoch == len(train)
    assert config.mining.parent == "parent"
    assert config.distillation.teachers == (str(parent.best.resolve()),)
    (hardness,) = parent.mining.glob("out-of-fold-*/hardness.csv")
    folds = sorted(path.name for path in hardness.parent.iterdir() if path.is_dir())
    assert folds == ["seed-0-fold-0", "seed-0-fold-1", "seed-1-fold-0", "seed-1-fold-1"]
    # A second round takes the folds of the first, whose networks start where the first run started.
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Message):
            said.append(event.text)

    again, _ = mine(tiny, run, "mined-again", listen=listen)
    assert [path.name for path in again.mining_rounds] == ["round-2.csv"]
    assert not [text for text in said if text.startswith("repetition")]
    assert [text for text in said if text.startswith("hardness of 26 images taken from")]
    third, _ = mine(tiny, again, "third")
    assert [path.name for path in third.mining_rounds] == ["round-3.csv"]
    assert hardness.parent.parent == parent.mining


@pytest.mark.slow
def test_held_out_images_are_never_trained_on(tiny: ModuleType, parent: RunDir, tiny_catalog: Catalog) -> None:
    mine(tiny, parent, "mined")
    for fold in parent.mining.glob("out-of-fold-*/seed-*"):
        rows = read_rows(fold / "catalog.csv")
        trained = {row["lesion_id"] for row in rows if row["split"] == "train"}
        held_out = {row["lesion_id"] for row in rows if row["split"] == ""}
        assert trained
        assert held_out
        assert not trained & held_out
    judged = {row.image_id for row in tiny_catalog if row.split in ("val", "test")}
    assert not judged & {row["image_id"] for row in rows}


def test_neighbours_are_images_that_the_fold_trained_on(
    tiny: ModuleType, parent: RunDir, tiny_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.make_config(mining={"method": "out_of_fold"})
    rows = training_rows(tiny_catalog, config)
    held_out = np.arange(len(rows)) % 3 == 0
    seen: list[set[str]] = []

    def watch(function: Callable[..., object]) -> Callable[..., object]:
        def watched(network: object, dataset: LesionDataset, **options: object) -> object:
            seen.append(set(ids_of(dataset.images.catalog)))
            return function(network, dataset, **options)

        return watched

    for name in ("predict_with_features", "extract_features"):
        monkeypatch.setattr(out_of_fold, name, watch(getattr(out_of_fold, name)))
    logits, agreement = out_of_fold._judge_fold(parent, rows, held_out, config, "cpu")
    judged, references = seen
    assert len(logits) == len(agreement) == len(judged) == held_out.sum()
    assert references == set(ids_of(rows)) - judged


@pytest.mark.slow
def test_mining_goes_on_after_a_stop_in_a_fold(tiny: ModuleType, parent: RunDir) -> None:
    steps = 0

    def stop_once(event: Event) -> None:
        nonlocal steps
        if isinstance(event, StepDone):
            steps += 1
            if steps == 8:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        mine(tiny, parent, "mined", listen=stop_once)
    assert not (parent.path.parent / "mined").exists()
    resumed, _ = mine(tiny, parent, "mined")
    for folder in parent.mining.iterdir():
        folder.rename(parent.path.parent / "kept")
    straight, _ = mine(tiny, parent, "straight")
    assert resumed.mining_rounds[0].read_bytes() == straight.mining_rounds[0].read_bytes()


@pytest.mark.slow
def test_interrupted_round_resumes_bit_for_bit(tiny: ModuleType, parent: RunDir) -> None:
    (hardness,) = [mine(tiny, parent, "whole")[0].mining_rounds[0]]
    steps = 0

    def stop_once(event: Event) -> None:
        nonlocal steps
        if isinstance(event, StepDone):
            steps += 1
            if steps == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    run, outcome = mine(tiny, parent, "stopped", hardness=hardness, listen=stop_once)
    assert not outcome.finished
    tiny.resume(run)
    whole, _ = load_tensors(parent.path.parent / "whole" / "checkpoints" / "last.safetensors")
    resumed, _ = load_tensors(run.last)
    assert whole.keys() == resumed.keys()
    assert all((whole[name] == resumed[name]).all() for name in whole)


@pytest.mark.slow
def test_reports_mining_and_its_controls_take_equal_steps(tiny: ModuleType, parent: RunDir) -> None:
    steps = {}
    overrides = [*SHORT, "mining.confidence_threshold=0.3"]
    for control in (None, "continuation", "random", "shuffled"):
        name = control or "none"
        run, _ = mine(tiny, parent, name, "paper-v2-hard", control=control, overrides=overrides)
        steps[name] = load_recipe(str(run.config)).mining.draws_per_epoch
        weights = [float(row["weight"]) for row in read_rows(run.mining_rounds[0])]
        chosen = sum(weight > 0 for weight in weights)
        assert chosen == (len(weights) if control == "continuation" else steps[name])
    assert len(set(steps.values())) == 1


@pytest.mark.slow
def test_random_sets_do_not_depend_on_a_hardness_that_is_kept(tiny: ModuleType, parent: RunDir) -> None:
    first, _ = mine(tiny, parent, "first", control="random")
    (hardness,) = parent.mining.glob("out-of-fold-*/hardness.csv")
    second, _ = mine(tiny, parent, "second", control="random")
    third, _ = mine(tiny, parent, "third", control="random", hardness=hardness)
    tables = {run.mining_rounds[0].read_bytes() for run in (first, second, third)}
    assert len(tables) == 1


@pytest.mark.slow
def test_nothing_of_a_mined_runs_course_passes_on(tiny: ModuleType, parent: RunDir) -> None:
    limits = ["training.time_limit_min=60", "training.early_stop_epochs=50", "mining.confidence_threshold=0.3"]
    limits += ["training.selection_metric=accuracy"]
    mined, _ = mine(tiny, parent, "mined", "paper-v2-hard", control="random", overrides=[*SHORT, *limits])
    config = round_config(mined, "mine", [])
    assert config.mining.control == "none"
    assert config.mining.draws_per_epoch == 0
    assert (config.training.time_limit_min, config.training.early_stop_epochs) == (0, 0)
    assert config.distillation.teachers == (str(mined.best.resolve()),)
    assert round_config(mined, "paper-v2-hard", []).distillation.weight == 0
    # A round is repeated by its own settings.
    again, _ = mine(tiny, parent, "again", str(mined.config), overrides=[])
    ours, theirs = load_tensors(mined.last)[0], load_tensors(again.last)[0]
    assert all((ours[name] == theirs[name]).all() for name in ours)


@pytest.mark.slow
def test_a_round_without_its_table_is_not_resumed(tiny: ModuleType, parent: RunDir) -> None:
    run, _ = mine(tiny, parent, "mined", "paper-v2-hard", overrides=[*SHORT, "mining.confidence_threshold=1.0"])
    run.mining_rounds[0].unlink()
    run.state.unlink()
    with pytest.raises(CheckpointError, match="mining/round-N"):
        tiny.resume(run)


@pytest.mark.slow
def test_folds_start_from_nothing_that_has_seen_labels(tiny: ModuleType, parent: RunDir, tiny_catalog: Catalog) -> None:
    config = tiny.make_config(model={"weights": str(parent.best)}, training={"selection_metric": "last"})
    second, _ = tiny.start(config, tiny_catalog, parent.path.parent, "second")
    with pytest.raises(ConfigError, match="not out of fold"):
        mine(tiny, second, "mined")
    mine(tiny, second, "mined", overrides=[*QUICK, "mining.fold_weights=none"])


def test_bad_requests(tiny: ModuleType, parent: RunDir, tiny_catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no mining recipe"):
        mine(tiny, parent, "mined", "quick", overrides=[])
    with pytest.raises(ConfigError, match="changes the preprocessing"):
        mine(tiny, parent, "mined", overrides=["preprocess.color_mode=gray"])
    with pytest.raises(ConfigError, match="changes the training rows"):
        mine(tiny, parent, "mined", overrides=["data.include_repeats=true"])
    with pytest.raises(ConfigError, match="exists already"):
        mine(tiny, parent, "parent")
    with pytest.raises(DataError, match="no mining table"):
        mine(tiny, parent, "mined", hardness=tmp_path / "none.csv")
    table = choose_boost(random_table(), MINING, "sqrt", seed=1)
    with pytest.raises(DataError, match="the mining table has 400 images"):
        mine(tiny, parent, "mined", hardness=table.to_csv(tmp_path / "foreign.csv"))
    with pytest.raises(ConfigError, match="lentigo mine RUN"):
        start_run(
            load_recipe("mine"), tiny_catalog, root=tmp_path, name="direct", where=Devices("cpu"), score=tiny.score,
            listen=lambda event: None,
        )  # fmt: skip
    parent.write_status("interrupted")
    with pytest.raises(CheckpointError, match="not finished"):
        mine(tiny, parent, "mined")
    assert not (parent.path.parent / "mined").exists()
