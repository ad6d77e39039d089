"""Parameter groups and rates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lentigo.core.config import OptimizerConfig
from lentigo.models.network import build_network, find_architecture, parameter_depths
from lentigo.training.schedule import ONE_CYCLE_END, ONE_CYCLE_START, build_optimizer, rate_factor, set_rates


def settings(**values: object) -> OptimizerConfig:
    return OptimizerConfig.model_validate(values)


def test_constant_without_warmup_is_one_from_the_first_step() -> None:
    config = settings(schedule="constant", warmup_fraction=0.0)
    assert {rate_factor(step, 9375, config) for step in range(0, 9375, 75)} == {1.0}


def test_warmup_rises_linearly() -> None:
    config = settings(schedule="constant", warmup_fraction=0.1)
    factors = [rate_factor(step, 100, config) for step in range(12)]
    assert factors == pytest.approx([(step + 1) / 11 for step in range(10)] + [1.0, 1.0])


def test_one_cycle_agrees_with_torch() -> None:
    """torch's OneCycleLR peaks at step pct_start * total - 1; ours one step later, at pct_start * total."""
    total, fraction = 101, 0.3
    config = settings(schedule="one_cycle", warmup_fraction=fraction)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=total, pct_start=(fraction * total + 1) / total, div_factor=25,
        final_div_factor=ONE_CYCLE_START / ONE_CYCLE_END, cycle_momentum=False,
    )  # fmt: skip
    for step in range(total):
        assert rate_factor(step, total, config) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6), step
        optimizer.step()
        if step < total - 1:
            theirs.step()


@given(
    st.sampled_from(["constant", "cosine", "one_cycle"]),
    st.integers(1, 400),
    st.floats(0, 0.99),
)
def test_every_factor_is_a_rate(schedule: str, total: int, warmup: float) -> None:
    config = settings(schedule=schedule, warmup_fraction=warmup)
    factors = [rate_factor(step, total, config) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_the_last_step_ends_near_nothing(schedule: str) -> None:
    config = settings(schedule=schedule, warmup_fraction=0.2)
    assert rate_factor(99, 100, config) == pytest.approx(ONE_CYCLE_END)


@pytest.mark.parametrize(
    "name, blocks", [("mobilenet_v2", 19), ("mobilenet_v3_large", 17), ("timm:efficientnet_lite0", 7)]
)
def test_layer_decay_slows_every_block_by_its_distance(name: str, blocks: int) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    architecture = find_architecture(name)
    with torch.device("meta"):
        network = build_network(name, 7)
    optimizer = build_optimizer(network, architecture, settings(learning_rate=0.1, layer_decay=0.5))
    rate = {id(p): group["base_rate"] for group in optimizer.param_groups for p in group["params"]}
    rates = {key: rate[id(parameter)] for key, parameter in network.named_parameters()}
    assert len(rates) == len(list(network.parameters()))
    for key, value in rates.items():
        if key.startswith(architecture.head_prefix):
            assert value == 0.1, key
        elif key.startswith(f"{architecture.blocks}."):
            block = int(key.split(".")[1])
            assert value == pytest.approx(0.1 * 0.5 ** (blocks - block)), key
    outside = {
        key: value
        for key, value in rates.items()
        if not key.startswith((architecture.head_prefix, architecture.blocks))
    }
    if name.startswith("timm:"):
        assert outside["conv_stem.weight"] == pytest.approx(0.1 * 0.5**8)
        assert outside["conv_head.weight"] == outside["bn2.weight"] == 0.05, "it lies between the blocks and the head"
    else:
        assert outside == {}
    set_rates(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {value * 0.5 for value in rates.values()}


@pytest.mark.parametrize("decay_norm, decayed", [(True, {"weight", "bias"}), (False, {"weight"})])
def test_weight_decay_of_biases_and_norms(decay_norm: bool, decayed: set[str]) -> None:
    network = torch.nn.ModuleDict(
        {"features": torch.nn.Sequential(torch.nn.BatchNorm2d(2)), "classifier": torch.nn.Linear(2, 2)}
    )
    architecture = find_architecture("mobilenet_v2")
    optimizer = build_optimizer(network, architecture, settings(decay_norm=decay_norm, weight_decay=0.03))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    found = {key: decay[id(parameter)] for key, parameter in network.named_parameters()}
    assert found["classifier.weight"] == 0.03
    others = {found[key] for key in ("features.0.weight", "features.0.bias", "classifier.bias")}
    assert others == ({0.03} if decay_norm else {0.0})


def test_depths_of_the_report_networks() -> None:
    for name, last in (
        ("mobilenet_v2", "features.18.0.weight"),
        ("mobilenet_v3_large", "features.16.0.weight"),
    ):
        with torch.device("meta"):
            depths = parameter_depths(build_network(name, 7), find_architecture(name))
        assert depths["features.0.0.weight"] == max(depths.values())
        assert depths[last] == 1
