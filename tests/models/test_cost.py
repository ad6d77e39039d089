"""Costs against published numbers, a count by hand and torchvision's own records."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision.models.mobilenetv2 import MobileNet_V2_Weights
from torchvision.models.mobilenetv3 import MobileNet_V3_Large_Weights

from lentigo.core.errors import ConfigError
from lentigo.models.cost import (
    Cost,
    architecture_cost,
    count_macs,
    measure_latency,
    network_cost,
    total_cost,
)
from lentigo.models.network import build_network


def small() -> nn.Module:
    """Two convolutions, one of them in groups, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 7),
    )


@pytest.mark.parametrize(
    ("name", "published", "weights"),
    [
        ("mobilenet_v2", 0.30e9, MobileNet_V2_Weights.IMAGENET1K_V2),
        ("mobilenet_v3_large", 0.22e9, MobileNet_V3_Large_Weights.IMAGENET1K_V2),
    ],
)
def test_published_numbers(name, published, weights):
    cost = architecture_cost(name, 224, 1000)
    assert cost.macs == pytest.approx(published, rel=0.02)
    assert round(cost.macs / 1e9, 3) == weights.meta["_ops"]
    assert cost.parameters == weights.meta["num_params"]
    assert architecture_cost(name, 224, 7).macs == cost.macs - 993 * 1280


def test_count_by_hand():
    cost = network_cost(small(), 16)
    assert cost.macs == 8 * 8 * 8 * 27 + 8 * 8 * 8 * 9 + 8 * 7
    assert cost.parameters == (8 * 27 + 8) + 16 + (8 * 9 + 8) + (8 * 7 + 7)
    # The running mean and variance of BatchNorm are kept, the count of its batches is not.
    assert cost.float32_mb == pytest.approx(4e-6 * (cost.parameters + 16))
    assert cost.float16_mb == pytest.approx(cost.float32_mb / 2)
    assert network_cost(small(), 32).macs == 4 * (8 * 8 * 8 * 36) + 56
    assert network_cost(small(), 16, views=4).macs == 4 * cost.macs


def test_every_layer_counts_as_a_hook_would():
    network, size = build_network("mobilenet_v3_large", 7).eval(), 64
    counted = []

    def add(module, _, output):
        if isinstance(module, nn.Conv2d):
            counted.append(output.numel() * module.weight[0].numel())
        elif isinstance(module, nn.Linear):
            counted.append(module.weight.numel())

    for module in network.modules():
        module.register_forward_hook(add)
    with torch.inference_mode():
        network(torch.zeros(1, 3, size, size))
    assert architecture_cost("mobilenet_v3_large", size, 7).macs == sum(counted)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_as_it_was(training):
    network = small().train(training)
    before = network[1].running_mean.clone()
    count_macs(network, 16)
    measure_latency(network, 16, runs=2, warm_up=1)
    assert network.training == training
    torch.testing.assert_close(network[1].running_mean, before)


def test_latency_says_what_it_rests_on():
    found = measure_latency(small(), 16, runs=9, warm_up=1)
    assert 0.0 < found.low_ms <= found.median_ms <= found.high_ms
    assert (found.n, found.threads) == (9, torch.get_num_threads())


def test_several_networks_add_up():
    one = Cost(10, 20, 0.5, 0.25)
    assert total_cost([one, one, one]) == Cost(30, 60, 1.5, 0.75)


def test_an_unknown_architecture():
    with pytest.raises(ConfigError, match="unknown architecture"):
        architecture_cost("mobilenet_v9", 224, 7)


def test_costs_can_be_read_without_torch():
    code = "import sys; sys.modules['torch'] = None; import lentigo.models.cost"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
