"""What the strong recipes add to a training: a smaller input first, teachers, prior correction, views at test time."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.cache import open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset
from lentigo.data.preprocess import Preprocess
from lentigo.data.sampling import draw_probabilities
from lentigo.evaluation.run_evaluation import evaluate_run
from lentigo.models.checkpoint import load_checkpoint, load_tensors
from lentigo.models.losses import distillation_loss, prior_shift
from lentigo.training.events import Event, Message
from lentigo.training.inference import predict_logits
from lentigo.training.loop import Trainer
from lentigo.training.rows import judged_rows


def make_trainer(tiny: ModuleType, catalog: Catalog, **sections: dict[str, object]) -> Trainer:
    fabric = Fabric(accelerator="cpu", devices=1)
    return Trainer(tiny.make_config(**sections), catalog, fabric, tiny.score, lambda event: None)


def judged(catalog: Catalog) -> LesionDataset:
    rows = judged_rows(catalog, "val")
    config = load_recipe("quick").data
    return LesionDataset(open_images(rows, Preprocess(resize_steps_px=(32,)), config))


# --- Smaller input first ------------------------------------------------------------------------------------


def test_first_epochs_see_smaller_images(tiny: ModuleType, tiny_catalog: Catalog) -> None:
    trainer = make_trainer(tiny, tiny_catalog, training={"small_epochs": 1, "small_size_px": 16})
    sizes = [next(iter(trainer.loader(epoch, 0)))[0].shape[-1] for epoch in (0, 1)]
    assert sizes == [16, 32]
    assert trainer.val_data[0].image.shape == (3, 32, 32)


def test_smaller_input_must_be_smaller_and_end() -> None:
    with pytest.raises(ConfigError, match="the last train at the full size"):
        load_recipe("strong-v2", ["training.epochs=12"])
    with pytest.raises(ConfigError, match="small_size_px must be less"):
        load_recipe("quick", ["training.small_epochs=2", "training.small_size_px=224"])


# --- Prior correction ---------------------------------------------------------------------------------------


def test_prior_shift_by_hand() -> None:
    labels = np.array([0] * 4 + [1] * 64)
    shift = prior_shift(labels, draw_probabilities(labels, "sqrt"), "none", 0.5).numpy()
    log_ratio = 0.5 * np.log(8 / 2)  # the sampler turns 64 : 4 into 8 : 2
    np.testing.assert_allclose(shift[:2], [log_ratio / 2, -log_ratio / 2], rtol=1e-6)
    assert shift[2:].tolist() == [0] * 5
    balanced = prior_shift(labels, draw_probabilities(labels, "inverse"), "none", 1.0)
    assert np.abs(balanced.numpy()).max() == pytest.approx(0, abs=1e-6)
    alone = np.array([1.0] * 4 + [1.0] * 4 + [0.0] * 60)
    as_many = prior_shift(labels, draw_probabilities(labels, "none", alone), "none", 1.0)
    assert np.abs(as_many.numpy()).max() == pytest.approx(0, abs=1e-6), "what counts is what is drawn"


@pytest.mark.slow
def test_correction_is_judged_but_not_trained_on(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    plain, _ = tiny.start(tiny.make_config(training={"selection_metric": "last"}), tiny_catalog, tmp_path, "plain")
    config = tiny.make_config(training={"selection_metric": "last"}, loss={"prior_correction": 1.0})
    shifted, _ = tiny.start(config, tiny_catalog, tmp_path, "shifted")
    ours, theirs = load_tensors(plain.best)[0], load_tensors(shifted.best)[0]
    assert all((ours[name] == theirs[name]).all() for name in ours), "training itself is the same"
    raw, spec = load_checkpoint(shifted.best, corrected=False)
    corrected, _ = load_checkpoint(shifted.best)
    assert len(spec.logit_shift) == 7
    assert max(spec.logit_shift) > 0.1
    data = judged(tiny_catalog)
    difference = predict_logits(corrected, data).logits - predict_logits(raw, data).logits
    np.testing.assert_allclose(difference, np.tile(spec.logit_shift, (len(data), 1)), atol=1e-5)
    # What an epoch's log row says is what the finished model answers.
    final = tiny.score(predict_logits(corrected, data))
    row = (shifted.log).read_text(encoding="utf-8").splitlines()
    logged = dict(zip(row[0].split(","), map(float, row[-1].split(",")), strict=True))
    assert logged["val_loss"] == pytest.approx(final["loss"], rel=1e-5)
    assert logged["val_loss"] != pytest.approx(tiny.score(predict_logits(raw, data))["loss"], rel=1e-3)


def test_correction_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="corrects the prior already"):
        load_recipe("quick", ["loss.kind=logit_adjusted", "training.sampler=none", "loss.prior_correction=0.5"])


# --- Views --------------------------------------------------------------------------------------------------


class BesideTheCorner(nn.Module):
    """Answers with the second pixel of each image's first row: one that a quarter turn does not leave in its place."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :1, 0, 1].repeat(1, 7)


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_views_are_the_mirrored_and_turned_images(tiny_catalog: Catalog, views: int) -> None:
    data = judged(tiny_catalog)
    images = np.stack([data[i].image.numpy() for i in range(len(data))])
    upright = [images[:, 0, 0, 1], images[:, 0, 0, -2], images[:, 0, -1, 1], images[:, 0, -1, -2]]
    turned = [images[:, 0, 1, 0], images[:, 0, 1, -1], images[:, 0, -2, 0], images[:, 0, -2, -1]]
    expected = np.mean([*upright, *turned][:views], axis=0)
    found = predict_logits(BesideTheCorner(), data, views=views)
    np.testing.assert_allclose(found.logits[:, 0], expected, rtol=1e-6)


@pytest.mark.slow
def test_a_run_is_judged_with_its_views(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    run, _ = tiny.start(tiny.make_config(inference={"views": 4}), tiny_catalog, tmp_path)
    network, spec = load_checkpoint(run.best)
    assert spec.views == 4
    evaluate_run(run, "val", resamples=100)
    data = judged(tiny_catalog)
    written = Predictions.from_csv(run.predictions("val")).logits
    np.testing.assert_allclose(written, predict_logits(network, data, views=4).logits, atol=1e-5)
    assert np.abs(written - predict_logits(network, data).logits).max() > 1e-4


# --- Teachers -----------------------------------------------------------------------------------------------


def test_distillation_loss_by_hand() -> None:
    logits, teacher = torch.randn(5, 7), functional.softmax(torch.randn(5, 7) / 2, dim=1)
    probs = functional.softmax(logits / 2, dim=1)
    expected = 4 * (teacher * (teacher / probs).log()).sum(dim=1).mean()
    assert distillation_loss(logits, teacher, 2.0).item() == pytest.approx(expected.item(), rel=1e-5)
    assert distillation_loss(logits, probs, 2.0).item() == pytest.approx(0, abs=1e-6)


@pytest.fixture
def teacher(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> RunDir:
    config = tiny.make_config(training={"epochs": 6}, loss={"prior_correction": 1.0})
    run, _ = tiny.start(config, tiny_catalog, tmp_path, "teacher")
    return run


@pytest.mark.slow
def test_student_comes_nearer_to_its_teacher(
    tiny: ModuleType, tiny_catalog: Catalog, teacher: RunDir, tmp_path: Path
) -> None:
    data = judged(tiny_catalog)
    theirs = predict_logits(load_checkpoint(teacher.best, corrected=False)[0], data).probs

    def distance(weight: float) -> float:
        section = {"teachers": [str(teacher.best)], "weight": weight} if weight else {}
        config = tiny.make_config(training={"epochs": 6, "seed": 1}, distillation=section)
        run, _ = tiny.start(config, tiny_catalog, tmp_path, f"student-{weight}")
        ours = predict_logits(load_checkpoint(run.best)[0], data).probs
        return float((theirs * np.log(theirs / ours)).sum(axis=1).mean())

    assert distance(1.0) < 0.5 * distance(0.0)


def test_teachers_answer_without_their_prior_correction(
    tiny: ModuleType, tiny_catalog: Catalog, teacher: RunDir
) -> None:
    section = {"teachers": [str(teacher.best), str(teacher.last)], "weight": 0.5, "temperature": 3.0}
    trainer = make_trainer(tiny, tiny_catalog, distillation=section)
    images = torch.stack([judged(tiny_catalog)[i].image for i in range(4)])
    networks = [load_checkpoint(path, corrected=False)[0] for path in (teacher.best, teacher.last)]
    with torch.no_grad():
        expected = torch.stack([functional.softmax(network(images) / 3.0, dim=1) for network in networks]).mean(dim=0)
    assert torch.allclose(trainer.teachers(images), expected, atol=1e-6)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_teachers_compute_in_the_precision_of_the_student(
    tiny: ModuleType, tiny_catalog: Catalog, teacher: RunDir, precision: Literal["32-true", "bf16-mixed"]
) -> None:
    config = tiny.make_config(distillation={"teachers": [str(teacher.best)], "weight": 0.5})
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    trainer = Trainer(config, tiny_catalog, fabric, tiny.score, lambda event: None)
    dtypes: list[torch.dtype] = []
    trainer.teachers.networks[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    images, labels, _ = next(iter(trainer.loader(0, 0)))
    trainer.step(images, labels, 0)
    assert dtypes == [torch.bfloat16 if precision == "bf16-mixed" else torch.float32]


def test_bad_teachers(tiny: ModuleType, tiny_catalog: Catalog, teacher: RunDir, tmp_path: Path) -> None:
    section: dict[str, object] = {"teachers": [str(teacher.best)], "weight": 0.5}
    with pytest.raises(ConfigError, match=r"takes rgb images .* this recipe makes gray images"):
        make_trainer(tiny, tiny_catalog, distillation=section, preprocess={"color_mode": "gray"})
    with pytest.raises(CheckpointError, match="no checkpoint"):
        make_trainer(tiny, tiny_catalog, distillation={"teachers": [str(tmp_path / "no.safetensors")], "weight": 0.5})
    with pytest.raises(ConfigError, match=r"need a distillation\.weight"):
        tiny.make_config(distillation={"teachers": ["a.safetensors"]})
    with pytest.raises(ConfigError, match="there are no teachers"):
        make_trainer(tiny, tiny_catalog, distillation={"weight": 0.5})
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Message):
            said.append(event.text)

    other = Catalog(tiny_catalog.rows[1:], "other", synthetic=True)
    config = tiny.make_config(distillation=section)
    Trainer(config, other, Fabric(accelerator="cpu", devices=1), tiny.score, listen)
    assert [text for text in said if text.startswith("caution: the teacher best.safetensors")]
