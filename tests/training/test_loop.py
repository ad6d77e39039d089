"""The training loop: what it selects, where it stops, what it leaves alone, and that it learns."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from lentigo.core.config import RegularizationConfig
from lentigo.core.errors import ConfigError, DataError
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.cache import open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset
from lentigo.data.preprocess import Preprocess
from lentigo.models.checkpoint import load_checkpoint, load_tensors
from lentigo.models.network import build_network
from lentigo.training import inference, loop
from lentigo.training.clock import Clock
from lentigo.training.devices import Devices, open_fabric
from lentigo.training.ema import WARMUP_STEPS, build_average
from lentigo.training.events import Decoding, EpochDone, Event, Message, StepDone, Validating, describe
from lentigo.training.loop import Trainer
from lentigo.training.mixing import Mixer
from lentigo.training.plan import plan_run
from lentigo.training.rows import training_rows
from lentigo.training.run import start_run


def read_log(run: RunDir) -> list[dict[str, str]]:
    with run.log.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def make_trainer(tiny: ModuleType, catalog: Catalog, **sections: dict[str, object]) -> Trainer:
    fabric = Fabric(accelerator="cpu", devices=1)
    return Trainer(tiny.make_config(**sections), catalog, fabric, tiny.score, lambda event: None)


class Scripted:
    """A score whose selection metric follows a script, one value an epoch."""

    def __init__(self, metric: str, values: list[float]) -> None:
        self.metric, self.values = metric, iter(values)

    def __call__(self, predictions: Predictions) -> Mapping[str, float]:
        names = ("loss", "accuracy", "balanced_accuracy", "macro_f1")
        return dict.fromkeys(names, 0.5) | {self.metric: next(self.values)}


def start_scripted(
    tiny: ModuleType, catalog: Catalog, root: Path, values: list[float], **training: object
) -> tuple[RunDir, Any]:
    metric = str(training.get("selection_metric", "balanced_accuracy"))
    config = tiny.make_config(training={"epochs": len(values), **training})
    score = Scripted("accuracy" if metric == "last" else metric, values)
    return start_run(
        config, catalog, root=root, name=None, where=Devices("cpu"), score=score, listen=lambda event: None
    )


def test_a_run_leaves_every_artefact(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    events: list[Event] = []
    run, outcome = tiny.start(tiny.make_config(), tiny_catalog, tmp_path, listen=events.append)
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()} - {".lock"}
    assert names == {
        "config.toml", "environment.json", "status.json", "catalog.csv", "catalog.sha256",
        "log.csv", "log.txt",
        "checkpoints/best.safetensors", "checkpoints/last.safetensors", "checkpoints/last.state",
    }  # fmt: skip
    rows = read_log(run)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 < float(row["train_loss"]) < 10 for row in rows)
    assert outcome.finished == "done"
    status = run.read_status()
    assert (status["state"], status["epoch"], status["best_epoch"]) == ("done", 2, outcome.best_epoch + 1)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [(step.epoch, step.step, step.steps) for step in steps] == [(e, s, 6) for e in (0, 1) for s in range(1, 7)]
    assert [event.done for event in events if isinstance(event, Decoding)] == [*range(1, 27), *range(1, 10)]
    assert [event.done for event in events if isinstance(event, Validating)] == [9, 9]
    lines = run.console.read_text(encoding="utf-8").splitlines()
    said = [text for event in events if (text := describe(event))]
    assert [line.split("  ", 1)[1] for line in lines] == said
    assert said[0].startswith("training on ")
    assert said[1] == "weights: random start"
    assert "epoch 2/2 | train loss" in said[-1]


def test_same_recipe_same_run_and_other_seed_another(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    first, again, other = (
        tiny.start(tiny.make_config(training={"seed": seed}), tiny_catalog, tmp_path, name)[0]
        for seed, name in ((1, "first"), (1, "again"), (2, "other"))
    )
    assert first.last.read_bytes() == again.last.read_bytes()
    assert (
        load_tensors(first.last)[0]["classifier.1.bias"].tolist()
        != load_tensors(other.last)[0]["classifier.1.bias"].tolist()
    )


def test_loader_processes_change_nothing(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    none, two = (
        tiny.start(tiny.make_config(data={"num_workers": workers}), tiny_catalog, tmp_path, f"workers-{workers}")[0]
        for workers in (0, 2)
    )
    assert none.last.read_bytes() == two.last.read_bytes()


def test_not_a_number_stops_with_a_remedy(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    config = tiny.make_plain_config(optimizer={"learning_rate": 1.0, "weight_decay": 1e30, "schedule": "constant"})
    with pytest.raises(ConfigError, match=r"loss became (nan|inf) in epoch 1, step \d") as error:
        tiny.start(config, tiny_catalog, tmp_path)
    assert "learning_rate" in error.value.remedy
    status = RunDir(tmp_path / "run").read_status()
    assert status["state"] == "failed"
    assert "loss became" in status["message"]
    assert not RunDir(tmp_path / "run").best.exists()


@pytest.mark.parametrize(
    "metric, values, best",
    [
        ("balanced_accuracy", [0.2, 0.6, 0.4], 1),
        ("balanced_accuracy", [0.5, 0.5, 0.5], 0),
        ("accuracy", [0.1, 0.2, 0.3], 2),
        ("loss", [1.0, 0.3, 0.6], 1),
        ("last", [0.9, 0.1, 0.2], 2),
    ],
)
def test_selection(
    tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path, metric: str, values: list[float], best: int
) -> None:
    run, outcome = start_scripted(tiny, tiny_catalog, tmp_path, values, selection_metric=metric)
    assert outcome.best_epoch == best
    assert outcome.best_score == (None if metric == "last" else values[best])
    assert load_checkpoint(run.best)[1].provenance["epoch"] == str(best + 1)
    assert load_checkpoint(run.last)[1].provenance["epoch"] == "3"


def test_early_stop(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    values = [0.1, 0.5, 0.4, 0.5, 0.9, 0.9]
    run, outcome = start_scripted(tiny, tiny_catalog, tmp_path, values, early_stop_epochs=2)
    assert (outcome.finished, outcome.best_epoch) == ("early stop", 1)
    assert len(read_log(run)) == 4
    assert run.read_status()["state"] == "done"


def test_time_limit_keeps_the_best(
    tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[StepDone] = []
    monkeypatch.setattr(Clock, "over", property(lambda clock: len(steps) >= 8))

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            steps.append(event)

    config = tiny.make_config(training={"epochs": 5, "time_limit_min": 1.0})
    run, outcome = tiny.start(config, tiny_catalog, tmp_path, listen=listen)
    assert outcome.finished == "time limit"
    assert len(steps) == 9
    assert [row["epoch"] for row in read_log(run)] == ["1", "2"]
    assert run.best.is_file()
    _, outcome = tiny.resume(run, listen)
    assert (outcome.finished, len(steps)) == ("time limit", 9)


def test_a_limit_that_is_over_at_the_last_step_stops_nothing(
    tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[StepDone] = []
    monkeypatch.setattr(Clock, "over", property(lambda clock: len(steps) >= 11))

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            steps.append(event)

    config = tiny.make_config(training={"epochs": 2, "time_limit_min": 1.0})
    _, outcome = tiny.start(config, tiny_catalog, tmp_path, listen=listen)
    assert (outcome.finished, len(steps)) == ("done", 12)
    steps.clear()
    config = tiny.make_config(training={"epochs": 3, "time_limit_min": 1.0})
    _, outcome = tiny.start(config, tiny_catalog, tmp_path, "longer", listen)
    assert (outcome.finished, len(steps)) == ("time limit", 12), "an epoch is left"


def test_clock() -> None:
    clock = Clock(100.0, loop.time.perf_counter() - 20, 119.0)
    assert 120 <= clock.elapsed_s < 121
    assert clock.over
    assert not Clock(100.0, loop.time.perf_counter() - 20, 0.0).over
    assert not Clock(0.0, loop.time.perf_counter() - 20, 119.0).over


def test_no_validation_rows(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    train = tiny_catalog.split("train")
    with pytest.raises(DataError, match="no validation rows"):
        tiny.start(tiny.make_config(), train, tmp_path)
    assert list(tmp_path.iterdir()) == [], "bad input leaves no folder behind"
    config = tiny.make_config(training={"selection_metric": "last"})
    run, outcome = tiny.start(config, train, tmp_path)
    assert outcome.best_epoch == 1
    assert "val_loss" not in read_log(run)[0]


def test_no_training_rows(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training rows") as error:
        tiny.start(tiny.make_config(), tiny_catalog.split("val"), tmp_path)
    assert "lentigo data split" in error.value.remedy


def test_batch_larger_than_the_data(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="26 training images do not fill one batch of 27") as error:
        tiny.start(tiny.make_config(training={"batch_size": 27}), tiny_catalog, tmp_path)
    assert "training.batch_size=26" in error.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_lesion_in_two_splits_is_refused(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    first, *rest = tiny_catalog.rows
    leak = type(first)(**{name: getattr(first, name) for name in first.__slots__} | {"image_id": "x", "split": "test"})
    with pytest.raises(DataError, match="more than one split"):
        tiny.start(tiny.make_config(), Catalog((first, leak, *rest)), tmp_path)


def test_test_rows_are_never_opened(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    first = tiny_catalog.rows[0]
    facts = {name: getattr(first, name) for name in first.__slots__}
    unseen = type(first)(**facts | {"image_id": "x", "lesion_id": "x", "split": "test", "path": tmp_path / "none.jpg"})
    _, outcome = tiny.start(tiny.make_config(), Catalog((*tiny_catalog.rows, unseen)), tmp_path)
    assert outcome.finished == "done"


def test_repeats_train_only_on_request_and_are_never_judged(tiny: ModuleType, synthetic_catalog: Catalog) -> None:
    primary = sum(row.primary for row in synthetic_catalog.split("train"))
    without = make_trainer(tiny, synthetic_catalog)
    with_repeats = make_trainer(tiny, synthetic_catalog, data={"include_repeats": True})
    assert len(without.train_data) == primary < len(with_repeats.train_data) == len(synthetic_catalog.split("train"))
    assert len(with_repeats.val_data) == sum(row.primary for row in synthetic_catalog.split("val"))


def test_augmentation_acts_on_training_images_alone(tiny: ModuleType, tiny_catalog: Catalog) -> None:
    trainer = make_trainer(tiny, tiny_catalog)
    plain = make_trainer(
        tiny, tiny_catalog, augment={"rotation_degrees": 0.0, "horizontal_flip": 0.0, "brightness": 0.0}
    )
    images, labels, indices = next(iter(trainer.loader(0, 0)))
    same, _, same_indices = next(iter(plain.loader(0, 0)))
    assert torch.equal(indices, same_indices)
    assert not torch.equal(images, same)
    assert torch.equal(
        same[0],
        torch.from_numpy(plain.train_data.images.preprocess(plain.train_data.images[int(indices[0])])),
    )
    assert labels.tolist() == [trainer.train_data.images.catalog.rows[i].label for i in indices]
    for i in range(len(trainer.val_data)):
        assert torch.equal(trainer.val_data[i].image, trainer.val_data[i].image)
        assert torch.equal(trainer.val_data[i].image, plain.val_data[i].image)


def test_the_average_is_judged_and_kept(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    run, _ = tiny.start(tiny.make_config(training={"selection_metric": "last"}), tiny_catalog, tmp_path)
    state, kept = load_tensors(run.state)[0], load_tensors(run.best)[0]
    name = "features.2.0.weight"
    assert torch.equal(kept[name], state[f"average/module.{name}"])
    assert not torch.equal(kept[name], state[f"network/{name}"])
    trainer = make_trainer(tiny, tiny_catalog, training={"selection_metric": "last"})
    trainer.resume(run)
    network, _ = load_checkpoint(run.last)
    expected = inference.predict_logits(network, trainer.val_data)
    np.testing.assert_array_equal(trainer.validate().logits, expected.logits)
    row = read_log(run)[-1]
    assert float(row["val_loss"]) == pytest.approx(tiny.score(expected)["loss"])


def test_average_follows_its_formula() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    values = [1.0, 2.0, 4.0, -3.0]
    average = build_average(network, 0.5)
    expected = 0.0
    for count, value in enumerate(values):
        with torch.no_grad():
            network[0].weight.fill_(value)
            network[1].running_mean.fill_(10 * value)
            network[1].num_batches_tracked.fill_(count)
        average.update_parameters(network)
        decay = min(0.5, (1 + count) / (WARMUP_STEPS + count)) if count else 0.0
        expected = decay * expected + (1 - decay) * value
        assert average.module[0].weight.item() == pytest.approx(expected, rel=1e-5)
        assert average.module[1].running_mean.item() == pytest.approx(10 * expected, rel=1e-5)
        assert average.module[1].num_batches_tracked.item() == count
    assert not any(parameter.requires_grad for parameter in average.parameters())


def statistics(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items() if "running" in name}


def run_steps(trainer: Trainer, epoch: int, count: int = 2) -> None:
    trainer.prepare_epoch(epoch)
    for number, (images, labels, _) in enumerate(trainer.loader(epoch, 0)):
        if number == count:
            break
        trainer.step(images, labels, epoch * trainer.steps_per_epoch + number)


@pytest.mark.parametrize("mode, moves", [("frozen", False), ("train", True)])
def test_batch_norm_statistics(tiny: ModuleType, tiny_catalog: Catalog, mode: str, moves: bool) -> None:
    trainer = make_trainer(tiny, tiny_catalog, model={"batch_norm": mode}, optimizer={"head_only_epochs": 0})
    before = statistics(trainer.network)
    run_steps(trainer, 0)
    trainer.validate()
    after = statistics(trainer.network)
    assert all(torch.equal(before[name], after[name]) is not moves for name in before)


def test_batch_norm_momentum(tiny: ModuleType, tiny_catalog: Catalog) -> None:
    trainer = make_trainer(tiny, tiny_catalog, model={"batch_norm_momentum": 0.37})
    found = [module.momentum for module in trainer.network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert found == [0.37] * 3


def test_head_first_leaves_the_backbone_bit_identical(tiny: ModuleType, tiny_catalog: Catalog) -> None:
    trainer = make_trainer(tiny, tiny_catalog, optimizer={"weight_decay": 0.5, "head_only_epochs": 1})
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    run_steps(trainer, 0, 6)
    after = trainer.network.state_dict()
    head = {name for name in before if name.startswith("classifier.")}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - head)
    assert not any(torch.equal(before[name], after[name]) for name in head)
    middle = {name: tensor.clone() for name, tensor in after.items()}
    run_steps(trainer, 1, 1)
    after = trainer.network.state_dict()
    assert not any(torch.equal(middle[name], after[name]) for name in middle)


@pytest.mark.parametrize("limit", [0.0, 1e-3])
def test_gradient_clipping(
    tiny: ModuleType, tiny_catalog: Catalog, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    trainer = make_trainer(tiny, tiny_catalog, optimizer={"head_only_epochs": 0, "gradient_clip_norm": limit})
    norms: list[float] = []
    step = trainer.state.optimizer.step

    def watch(*arguments: Any, **options: Any) -> Any:
        gradients = [parameter.grad for parameter in trainer.network.parameters() if parameter.grad is not None]
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
        return step(*arguments, **options)

    monkeypatch.setattr(trainer.state.optimizer, "step", watch)
    run_steps(trainer, 0)
    assert len(norms) == 2
    assert all(norm > 0.01 for norm in norms) if not limit else norms == pytest.approx([limit] * 2, rel=1e-2)


def test_learning_rate_of_every_step_is_the_schedule(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    config = tiny.make_config(optimizer={"layer_decay": 0.5})
    run, _ = tiny.start(config, tiny_catalog, tmp_path)
    rates = [float(row["learning_rate"]) for row in read_log(run)]
    expected = [0.01 * loop.rate_factor(step, 12, config.optimizer) for step in (5, 11)]
    assert rates == pytest.approx(expected)


def test_mixing() -> None:
    images = torch.rand(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([0, 1, 2, 3])
    off = Mixer(RegularizationConfig(ema_decay=0.0, mixup_alpha=0.0, cutmix_alpha=0.0))
    assert off(images, labels)[0] is images
    for settings in ({"mixup_alpha": 0.8, "cutmix_alpha": 0.0}, {"mixup_alpha": 0.0, "cutmix_alpha": 0.8}):
        mixer = Mixer(RegularizationConfig(ema_decay=0.0, **settings))
        torch.manual_seed(0)
        mixed, targets = mixer(images, labels)
        assert targets.shape == (4, 7)
        assert torch.allclose(targets.sum(dim=1), torch.ones(4))
        assert not torch.equal(mixed, images)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        share = targets[torch.arange(4), labels][0]
        if settings["mixup_alpha"]:
            assert torch.allclose(mixed, share * images + (1 - share) * images.roll(1, 0), atol=1e-6)
        else:
            kept = (mixed == images).all(dim=1).float().mean(dim=(1, 2))
            assert torch.allclose(kept, share.expand(4), atol=1e-5)
        single, label = mixer(images[:1], labels[:1])
        assert single.data_ptr() == images.data_ptr()
        assert label.tolist() == [0]


def test_plan_writes_nothing(
    tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_run(tiny.make_config(), tiny_catalog, where=Devices("cpu"), score=tiny.score, listen=lambda event: None)
    assert (plan.train_images, plan.val_images, plan.steps_per_epoch, plan.epochs) == (26, 9, 6, 2)
    assert plan.parameters == sum(parameter.numel() for parameter in tiny.TinyNetwork(7, 0.0).parameters())
    assert plan.seconds_per_step > 0
    assert plan.cache_mb == pytest.approx(35 * 32 * 32 * 3 / 2**20, abs=0.06)
    assert list(tmp_path.iterdir()) == []


def test_devices_that_are_not_there(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="found 1 CUDA devices"):
        open_fabric(tiny.make_config(), Devices("cuda", devices=2))


def test_torchrun_with_another_number_of_processes(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="torchrun started 2 processes"):
        open_fabric(tiny.make_config(), Devices("cpu", devices=1))


def test_predictions_keep_order_and_mode(tiny: ModuleType, tiny_catalog: Catalog) -> None:
    trainer = make_trainer(tiny, tiny_catalog)
    trainer.network.train()
    seen: list[tuple[int, int]] = []
    table = inference.predict_logits(
        trainer.network,
        trainer.val_data,
        batch_size=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert trainer.network.training
    assert seen == [(4, 9), (8, 9), (9, 9)]
    assert table.image_id == tuple(row.image_id for row in tiny_catalog.split("val"))
    trainer.network.eval()
    with torch.inference_mode():
        alone = [trainer.network(sample.image[None])[0].numpy() for sample in trainer.val_data]
    np.testing.assert_allclose(table.logits, np.stack(alone), atol=1e-5)


def test_logits_and_features_of_one_pass_are_those_of_two(synthetic_catalog: Catalog) -> None:
    rows = synthetic_catalog.split("val")
    dataset = LesionDataset(open_images(rows, Preprocess(resize_steps_px=(64,)), load_recipe("quick").data))
    timm = ["timm:mobilenetv4_conv_small"] if find_spec("timm") else []
    for name in ("mobilenet_v2", "mobilenet_v3_large", *timm):
        torch.manual_seed(0)
        network = build_network(name, 7).train()
        found, features = inference.predict_with_features(network, dataset, batch_size=8)
        expected = inference.predict_logits(network, dataset, batch_size=8)
        assert found.image_id == expected.image_id
        np.testing.assert_array_equal(found.logits, expected.logits)
        np.testing.assert_array_equal(features, inference.extract_features(network, dataset, batch_size=8))
        assert network.training
        assert not any(module._forward_hooks for module in network.modules())


def test_one_pass_for_both_is_one_pass(synthetic_catalog: Catalog) -> None:
    dataset = LesionDataset(
        open_images(synthetic_catalog.split("val"), Preprocess(resize_steps_px=(32,)), load_recipe("quick").data)
    )
    network, passes = build_network("mobilenet_v2", 7), []
    network.get_submodule("features").register_forward_hook(lambda *call: passes.append(len(call[2])))
    inference.predict_with_features(network, dataset)
    assert passes == [len(dataset)]
    with pytest.raises(ConfigError, match="Flatten has no features"):
        inference.predict_with_features(nn.Flatten(), dataset)


@pytest.mark.slow
def test_a_network_learns(tiny: ModuleType, synthetic_catalog: Catalog, tmp_path: Path) -> None:
    config = tiny.make_plain_config(
        preprocess={"resize_steps_px": [64]},
        model={"architecture": "mobilenet_v2", "batch_norm": "train", "batch_norm_momentum": 0.1},
        optimizer={"learning_rate": 2e-3, "schedule": "constant", "warmup_fraction": 0.0},
        training={"epochs": 8, "batch_size": 8},
    )
    messages: list[Event] = []
    run, _ = tiny.start(config, synthetic_catalog, tmp_path, listen=messages.append)
    losses = [float(row["train_loss"]) for row in read_log(run)]
    assert losses[-1] < 0.6 * losses[0], losses
    best = [event.best for event in messages if isinstance(event, EpochDone)]
    assert best[0]
    assert any(isinstance(event, Message) for event in messages)


def test_excluded_images_are_never_trained_on(tiny: ModuleType, synthetic_catalog: Catalog) -> None:
    everything = training_rows(synthetic_catalog, tiny.make_config())
    left_out = everything.rows[0].image_id
    without = make_trainer(tiny, synthetic_catalog, data={"exclude_images": (left_out,)})
    assert len(without.train_data) == len(everything) - 1
    rows = training_rows(synthetic_catalog, tiny.make_config(data={"exclude_images": (left_out,)}))
    assert [row.image_id for row in rows.rows] == [row.image_id for row in everything.rows[1:]]


def test_excluding_an_image_that_is_not_there_is_an_error(tiny: ModuleType, synthetic_catalog: Catalog) -> None:
    held_out = synthetic_catalog.split("val").rows[0].image_id
    with pytest.raises(DataError, match=rf"data\.exclude_images names {held_out}"):
        make_trainer(tiny, synthetic_catalog, data={"exclude_images": (held_out,)})
