"""Losses against torch's own and against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from lentigo.core.config import LossConfig
from lentigo.data.sampling import class_weights, draw_probabilities
from lentigo.models.losses import build_loss, focal_loss, prior_shift

LABELS = torch.tensor([0] * 3 + [1] * 5 + [2] * 10 + [3] + [4] * 11 + [5] * 70)
"""Class 6 is absent."""
LOGITS = torch.randn(8, 7, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 3, 4, 5, 5, 5])


def build(**values: object):  # type: ignore[no-untyped-def]
    return build_loss(LossConfig.model_validate(values), LABELS)


def test_plain_cross_entropy() -> None:
    assert build()(LOGITS, TARGET).item() == pytest.approx(functional.cross_entropy(LOGITS, TARGET).item())


@pytest.mark.parametrize("strength", ["sqrt", "inverse"])
def test_class_weights_and_smoothing(strength: str) -> None:
    weight = torch.from_numpy(class_weights(LABELS.numpy(), strength)).float()  # type: ignore[arg-type]
    expected = functional.cross_entropy(LOGITS, TARGET, weight, label_smoothing=0.1, reduction="sum") / len(TARGET)
    loss = build(class_weights=strength, label_smoothing=0.1)
    found = loss(LOGITS, TARGET)
    assert found.item() == pytest.approx(expected.item())
    halves = (loss(LOGITS[:4], TARGET[:4]) + loss(LOGITS[4:], TARGET[4:])) / 2
    assert halves.item() == pytest.approx(found.item()), "two processes would differ from one"
    assert found.item() != pytest.approx(build(label_smoothing=0.1)(LOGITS, TARGET).item())


def test_targets_may_be_probabilities() -> None:
    loss = build(label_smoothing=0.1)
    one_hot = functional.one_hot(TARGET, 7).float()
    assert loss(LOGITS, one_hot).item() == pytest.approx(loss(LOGITS, TARGET).item(), rel=1e-6)


def test_focal_is_cross_entropy_at_gamma_zero_and_its_formula_elsewhere() -> None:
    assert focal_loss(LOGITS, TARGET, 0.0).item() == pytest.approx(functional.cross_entropy(LOGITS, TARGET).item())
    p = LOGITS.softmax(dim=1)[torch.arange(8), TARGET]
    weights = torch.arange(1.0, 8.0)
    expected = (-weights[TARGET] * (1 - p) ** 1.5 * p.log()).mean()
    assert focal_loss(LOGITS, TARGET, 1.5, weights).item() == pytest.approx(expected.item(), rel=1e-5)
    assert build(kind="focal", focal_gamma=1.5)(LOGITS, TARGET).item() == pytest.approx(
        focal_loss(LOGITS, TARGET, 1.5).item()
    )


def test_focal_gradient_is_finite_where_the_network_is_certain() -> None:
    for gamma in (0.5, 1.0, 2.0):
        logits = torch.tensor([[200.0, 0, 0, 0, 0, 0, 0], [-200.0, 0, 0, 0, 0, 0, 0]], requires_grad=True)
        focal_loss(logits, torch.tensor([0, 0]), gamma).backward()
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all(), gamma


def test_logit_adjustment_adds_the_log_prior() -> None:
    counts = torch.tensor([3.0, 5, 10, 1, 11, 70, 1])
    shift = 0.7 * (counts / counts.sum()).log()
    expected = functional.cross_entropy(LOGITS + shift, TARGET)
    found = build(kind="logit_adjusted", logit_adjustment=0.7)(LOGITS, TARGET)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_prior_correction_weighs_classes_as_the_loss_does_by_what_can_be_drawn() -> None:
    labels = np.array([0] * 40 + [1] * 60)
    factors = np.array([1.0] * 10 + [0.0] * 30 + [1.0] * 60)
    shift = prior_shift(labels, draw_probabilities(labels, "none", factors), "inverse", 1.0)
    assert shift.abs().max().item() == pytest.approx(0, abs=1e-6), "10 : 60 drawn, weighted 60 : 10"


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "logit_adjusted"])
def test_gradients_point_downhill(kind: str) -> None:
    loss = build(kind=kind, class_weights="sqrt")
    logits = LOGITS.clone().requires_grad_()
    before = loss(logits, TARGET)
    before.backward()
    assert logits.grad is not None
    assert loss(logits.detach() - 0.1 * logits.grad, TARGET) < before
