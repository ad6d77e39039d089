"""A student learns from a teacher without labels: from training rows alone, resumably, into a start that loads."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lentigo.core.errors import CheckpointError, ConfigError, DataError
from lentigo.data.catalog import Catalog, Row
from lentigo.data.unlabelled import UNLABELLED, gather_unlabelled, list_photographs
from lentigo.models.network import ARCHITECTURES, build_network, find_architecture
from lentigo.models.weights import START_KEY, load_weights
from lentigo.training import distill_loop
from lentigo.training.distill import DistillOutcome, distill, resume_distill
from lentigo.training.distill_settings import DistillSettings, StartDir, build_settings
from lentigo.training.events import Event, Message, StepDone
from lentigo.training.feature_teachers import describe_teacher, normalization, open_teacher, standardization
from lentigo.training.matcher import explained_share, matching_loss, mix_images
from lentigo.training.stopping import stop_requests


def silent(event: Event) -> None:
    """A listener that hears nothing."""


@pytest.fixture
def table(tiny_catalog: Catalog, tmp_path: Path) -> Path:
    """The drawings as a table whose val and test rows point at a file that cannot be opened as an image."""
    poison = tmp_path / "poison.jpg"
    poison.write_bytes(b"whoever reads this has opened an image of val or test")
    rows = [row if row.split == "train" else replace(row, path=poison) for row in tiny_catalog]
    test = replace(rows[-1], image_id="test-image", lesion_id="test-lesion", split="test")
    extra = replace(rows[0], image_id="extra-image", lesion_id="extra-lesion", split="extra")
    return Catalog((*rows, test, extra), "tiny").to_csv(tmp_path / "tiny.csv")


@pytest.fixture
def photographs(tiny_catalog: Catalog, tmp_path: Path) -> Path:
    """A folder of 20 images and a note."""
    folder = tmp_path / "photographs"
    (folder / "inner").mkdir(parents=True)
    for number, row in enumerate(row for row in tiny_catalog if row.split == "train"):
        if number < 20:
            shutil.copy(row.path, folder / ("inner" if number % 2 else "") / f"{number}.jpg")
    (folder / "README.md").write_text("not an image", encoding="utf-8")
    return folder


@pytest.fixture
def teacher(tiny: ModuleType, tmp_path: Path) -> Path:
    """Random weights of the tiny network, whose features are as good as any to learn."""
    torch.manual_seed(5)
    path = tmp_path / "teacher.safetensors"
    save_file(tiny.TinyNetwork(7, 0.0).state_dict(), path)
    return path


@pytest.fixture
def make(table: Path, photographs: Path, teacher: Path) -> Callable[..., DistillSettings]:
    """Settings of a distillation of a second."""

    def build(**changes: Any) -> DistillSettings:
        values: dict[str, Any] = {
            "student": "tiny",
            "teachers": [describe_teacher("tiny", teacher)],
            "catalogs": [str(table)],
            "photographs": [str(photographs)],
            "sizes_px": [32],
            "epochs": 3,
            "batch_size": 8,
            "held_out_share": 0.15,
            "learning_rate": 0.02,
            "ema_decay": 0.9,
            "mixup_alpha": 0.2,
            "data": {"num_workers": 0, "cache": "memory"},
        }
        return build_settings(**{**values, **changes})

    return build


def run(settings: DistillSettings, out: Path, **options: Any) -> DistillOutcome:
    return distill(settings, out, accelerator="cpu", **{"listen": silent, **options})


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "start.safetensors") | load_file(folder / "checkpoints" / "last.state")


def test_the_loss_falls_on_images_kept_apart(make: Callable[..., DistillSettings], tmp_path: Path) -> None:
    said: list[str] = []
    outcome = run(
        make(epochs=25, mixup_alpha=0.0),
        tmp_path / "start",
        listen=lambda event: said.append(event.text) if isinstance(event, Message) else None,
    )
    assert outcome.ended == "done"
    rows = (tmp_path / "start" / "log.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("epoch,size_px,train_loss,held_out_loss,held_out_explained")
    first, last = (
        dict(zip(rows[0].split(","), map(float, row.split(",")), strict=True)) for row in (rows[1], rows[-1])
    )
    assert last["held_out_loss"] < first["held_out_loss"] * 0.9, rows
    assert last["held_out_explained"] > max(0.05, first["held_out_explained"])
    assert "27 images of train and extra (10 of val, test or no split left out) and 20 photographs (1 files" in said[0]
    assert json.loads((tmp_path / "start" / "status.json").read_text(encoding="utf-8"))["state"] == "done"
    assert "held out loss" in (tmp_path / "start" / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("stop_at", [3, 5])
def test_a_resumed_distillation_is_the_same_bit_for_bit(
    make: Callable[..., DistillSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    settings = make(sizes_px=[32, 48])
    run(settings, tmp_path / "whole")
    steps: list[StepDone] = []

    class Stop:
        def __enter__(self) -> Callable[[], bool]:
            return lambda: len(steps) == stop_at

        def __exit__(self, *error: object) -> None:
            return None

    monkeypatch.setattr(distill_loop, "stop_requests", Stop)
    stopped = run(
        settings, tmp_path / "cut", listen=lambda event: steps.append(event) if isinstance(event, StepDone) else None
    )
    assert stopped.ended == ""
    assert len(steps) == stop_at
    assert StartDir(tmp_path / "cut").read_status()["state"] == "interrupted"
    assert (tmp_path / "cut" / "start.safetensors").is_file()
    monkeypatch.setattr(distill_loop, "stop_requests", stop_requests)
    resumed = resume_distill(tmp_path / "cut", listen=silent, accelerator="cpu")
    assert resumed.ended == "done"
    whole, again = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "cut")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    environment = json.loads((tmp_path / "cut" / "environment.json").read_text(encoding="utf-8"))
    assert len(environment["sessions"]) == 2


def test_a_time_limit_leaves_a_start_and_can_be_continued(make: Callable[..., DistillSettings], tmp_path: Path) -> None:
    outcome = run(make(), tmp_path / "start", time_limit_min=1e-6)
    assert (outcome.ended, outcome.epochs) == ("time limit", 0)
    assert (tmp_path / "start" / "start.safetensors").is_file()
    again = resume_distill(tmp_path / "start", listen=silent, accelerator="cpu")
    assert (again.ended, again.epochs) == ("done", 3)


def test_the_start_holds_the_backbone_in_half_precision_and_says_where_it_is_from(
    make: Callable[..., DistillSettings], tmp_path: Path, table: Path
) -> None:
    run(make(epochs=1, licence_note="teacher: MIT"), tmp_path / "start")
    path = tmp_path / "start" / "start.safetensors"
    tensors = load_file(path)
    assert not [name for name in tensors if name.startswith("classifier.")]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16, torch.int64}
    with safe_open(path, "pt") as stream:
        text = stream.metadata()[START_KEY]
    facts = json.loads(text)
    assert facts["architecture"] == "tiny"
    assert facts["teachers"][0]["file"] == "teacher.safetensors"
    assert len(facts["teachers"][0]["sha256"]) == 64
    assert (facts["images"] + facts["images_kept_apart"], facts["photographs"]) == (47, 20)
    assert (facts["licence_note"], facts["epochs"], facts["seed"]) == ("teacher: MIT", 1, 0)
    assert str(tmp_path) not in text
    assert "test-image" not in text
    network = build_network("tiny", 7)
    report = load_weights(network, "tiny", find_architecture("tiny"), str(path))
    assert len(report.trained_on) == 64
    assert (report.missing, report.unused) == ((), ())
    assert torch.equal(network.state_dict()["features.0.0.weight"], tensors["features.0.0.weight"].float())


def test_two_teachers_of_other_architectures(
    make: Callable[..., DistillSettings], teacher: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    save_file(build_network("mobilenet_v2", 3).state_dict(), tmp_path / "v2.safetensors")
    described = [describe_teacher("tiny", teacher), describe_teacher("mobilenet_v2", tmp_path / "v2.safetensors")]
    run(make(teachers=described, epochs=1), tmp_path / "start")
    state = load_file(tmp_path / "start" / "checkpoints" / "last.state")
    assert state["network/maps.0.weight"].shape == (16, 16)
    assert state["network/maps.1.weight"].shape == (1280, 16)
    assert state["network/center_1"].abs().sum() > 0
    assert torch.equal(state["network/scale_1"], state["average/module.scale_1"])


def test_only_training_rows_without_their_labels(table: Path, photographs: Path) -> None:
    from lentigo.data.catalog import read_catalog_csv

    catalog = read_catalog_csv(table)
    images = gather_unlabelled([catalog], [photographs], held_out_share=0.2, seed=1)
    rows = [*images.train, *images.held_out]
    assert {row.label for row in rows} == {UNLABELLED}
    assert {row.split for row in rows} == {"train", "extra", ""}
    assert len(rows) == len({row.image_id for row in rows}) == 27 + 20
    assert images.left_out == 10
    assert not {row.lesion_id for row in images.train} & {row.lesion_id for row in images.held_out}
    assert 9 <= len(images.held_out) <= 12
    again = gather_unlabelled([catalog], [photographs], held_out_share=0.2, seed=1)
    assert again == images
    other = gather_unlabelled([catalog], [photographs], held_out_share=0.2, seed=2)
    assert other.held_out.rows != images.held_out.rows


def test_whole_groups_are_kept_apart() -> None:
    rows = [
        Row(f"{number}", Path(f"{number}.jpg"), 0, f"lesion {number // 2}", group_id=f"g{number // 6}", split="train")
        for number in range(60)
    ]
    images = gather_unlabelled([Catalog(tuple(rows))], [], held_out_share=0.05, seed=0)
    assert len(images.held_out) == 6
    assert not {row.group_id for row in images.train} & {row.group_id for row in images.held_out}


def test_a_lesion_whose_patient_is_partly_known_is_kept_apart_whole() -> None:
    rows = [
        Row(f"{n}", Path(f"{n}.jpg"), 0, f"lesion {n // 2}", patient_id="" if n % 2 else f"p{n // 4}", split="train")
        for n in range(80)
    ]
    images = gather_unlabelled([Catalog(tuple(rows))], [], held_out_share=0.2, seed=0)
    assert len(images.held_out) == 16
    assert not {row.lesion_id for row in images.train} & {row.lesion_id for row in images.held_out}
    assert not {row.patient_id for row in images.train} & {row.patient_id for row in images.held_out} - {""}


def test_images_of_val_and_test_do_not_come_in_as_photographs(table: Path, photographs: Path) -> None:
    from lentigo.data.catalog import read_catalog_csv

    catalog = read_catalog_csv(table)
    name = next(row.image_id for row in catalog if row.split == "val")
    shutil.copy(photographs / "0.jpg", photographs / f"{name}.jpg")
    with pytest.raises(DataError, match=f"1 photographs are images that the catalogue keeps.*{name}"):
        gather_unlabelled([catalog], [photographs], held_out_share=0.05, seed=0)


def test_wrong_data_is_named(table: Path, tmp_path: Path, photographs: Path) -> None:
    from lentigo.data.catalog import read_catalog_csv

    catalog = read_catalog_csv(table)
    torn = replace(catalog, rows=tuple(replace(r, split="val") if r.split == "train" else r for r in catalog))
    with pytest.raises(DataError, match="lesions have images in more than one split"):
        gather_unlabelled([catalog, torn], [], held_out_share=0.05, seed=0)
    with pytest.raises(DataError, match=r"no training rows: none of the 37 images"):
        gather_unlabelled(
            [catalog.filter(lambda row: False), *[_all(catalog, "test")]][1:], [], held_out_share=0.05, seed=0
        )
    with pytest.raises(DataError, match="no folder of photographs"):
        list_photographs([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"holds no image; found notes\.txt"):
        list_photographs([tmp_path / "empty"])


def _all(catalog: Catalog, split: str) -> Catalog:
    return replace(catalog, rows=tuple(replace(row, split=split) for row in catalog))


def test_unreadable_photographs_are_named_before_anything_is_written(
    make: Callable[..., DistillSettings], photographs: Path, tmp_path: Path
) -> None:
    for number in range(7):
        (photographs / f"broken-{number}.jpg").write_bytes(b"\xff\xd8\xff no image")
    with pytest.raises(DataError, match=r"images cannot be read: .*broken-0\.jpg.* and \d+ more") as error:
        run(make(held_out_share=0.01), tmp_path / "start")
    assert "truncated or damaged" in error.value.message
    assert not (tmp_path / "start").exists()


def test_wrong_settings_are_named(make: Callable[..., DistillSettings], teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not fill one batch of 64"):
        run(make(batch_size=64), tmp_path / "start")
    with pytest.raises(ConfigError, match=r"wrong settings: sizes_px\.0 = 8.*; epochs = 0"):
        make(sizes_px=[8], epochs=0)
    with pytest.raises(CheckpointError, match="no weights file"):
        describe_teacher("tiny", tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="not the folder of a distillation"):
        resume_distill(tmp_path / "start", listen=silent, accelerator="cpu")
    run(make(epochs=1), tmp_path / "start")
    with pytest.raises(ConfigError, match="exists already"):
        run(make(), tmp_path / "start")
    partial = load_file(teacher)
    del partial["features.2.0.weight"]
    save_file(partial, teacher)
    with pytest.raises(CheckpointError, match=r"teacher's file .* changed since"):
        resume_distill(tmp_path / "start", listen=silent, accelerator="cpu")
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors of tiny: features\.2\.0\.weight"):
        run(make(teachers=[describe_teacher("tiny", teacher)]), tmp_path / "other")


def test_a_teacher_may_be_judged_but_not_change_while_the_distillation_rests(
    make: Callable[..., DistillSettings], teacher: Path, tmp_path: Path
) -> None:
    weights = load_file(teacher)
    described = describe_teacher("tiny", teacher)
    by_file = described.model_copy(update={"sha256": hashlib.sha256(teacher.read_bytes()).hexdigest()})
    open_teacher(by_file, torch.device("cpu"))  # settings of an earlier version
    run(make(epochs=2), tmp_path / "start", time_limit_min=1e-6)
    save_file(weights, teacher, metadata={"lentigo": '{"calibration": {}}'})  # what `lentigo evaluate` writes
    assert resume_distill(tmp_path / "start", listen=silent, accelerator="cpu").ended == "done"
    weights["features.0.0.weight"] *= 1.01
    save_file(weights, teacher)
    for one in (described, by_file):
        with pytest.raises(CheckpointError, match=r"teacher's file .* changed since"):
            open_teacher(one, torch.device("cpu"))


def test_changed_images_are_noticed_on_resuming(
    make: Callable[..., DistillSettings], photographs: Path, tmp_path: Path
) -> None:
    run(make(), tmp_path / "start", time_limit_min=1e-6)
    (photographs / "0.jpg").unlink()
    with pytest.raises(CheckpointError, match="the images changed"):
        resume_distill(tmp_path / "start", listen=silent, accelerator="cpu")


def test_each_teacher_normalises_by_itself(teacher: Path, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(tiny.TINY, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    monkeypatch.setitem(ARCHITECTURES, "tiny", own)
    opened = open_teacher(describe_teacher("tiny", teacher), torch.device("cpu"))
    network: nn.Module = tiny.TinyNetwork(7, 0.0)
    network.load_state_dict(load_file(teacher))
    images = torch.rand(3, 3, 32, 32)
    mean, std = normalization(own, torch.device("cpu"))
    with torch.no_grad():
        expected = network.eval().features((images - mean) / std).mean(dim=(2, 3))
    torch.testing.assert_close(opened.features(images), expected)
    assert not opened.features(images).requires_grad


def test_sizes_share_the_epochs_in_their_order(make: Callable[..., DistillSettings]) -> None:
    settings = make(sizes_px=[32, 48, 64], epochs=7)
    assert [settings.size_px(epoch) for epoch in range(7)] == [32, 32, 32, 48, 48, 64, 64]
    assert settings.preprocess(48).resize_steps_px == (80, 48)


def test_loss_share_and_mixture() -> None:
    target = torch.randn(50, 4)
    assert float(matching_loss([target], [target])) == 0
    assert explained_share([target], [target]) == 1
    assert explained_share([torch.zeros(50, 4)], [target]) == 0
    assert explained_share([target[:1] / 2], [target[:1]]) == pytest.approx(0.75)
    images = torch.rand(6, 3, 4, 4)
    assert mix_images(images, 0.0) is images
    torch.manual_seed(0)
    mixed = mix_images(images, 1.0)
    shares = (mixed - images).flatten(1).norm(dim=1) / (images.roll(1, dims=0) - images).flatten(1).norm(dim=1)
    assert ((shares > 0) & (shares <= 0.5)).all()


def test_dimensions_that_do_not_move() -> None:
    features = torch.randn(100, 5) * torch.tensor([1.0, 2.0, 1.0, 0.0, 1.0]) + 3
    mean, std = standardization(features)
    torch.testing.assert_close(mean, features.mean(dim=0))
    assert std[3] == features.std(dim=0).median() / 100
    with pytest.raises(ConfigError, match="the same for every image"):
        standardization(torch.ones(10, 3))
