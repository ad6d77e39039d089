"""Pooled features are what the classifier of each network gets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lentigo.core.errors import ConfigError
from lentigo.models.features import pooled_features
from lentigo.models.network import build_network, find_architecture

TIMM = pytest.param("timm:tf_efficientnet_lite0", 1280, "classifier", marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "width", "head"),
    [("mobilenet_v2", 1280, "classifier"), ("mobilenet_v3_large", 960, "classifier"), TIMM],
)
def test_the_classifier_on_pooled_features_is_the_network(name: str, width: int, head: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    network = build_network(name, 7).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        features = pooled_features(network, images)
        logits = network.get_submodule(head)(features)
        expected = network(images)
    assert features.shape == (2, width)
    assert width == find_architecture(name).feature_dim
    torch.testing.assert_close(logits, expected)


def test_gradients_and_modes_pass_through() -> None:
    network = build_network("mobilenet_v2", 7).train()
    pooled_features(network, torch.rand(2, 3, 32, 32)).sum().backward()
    assert network.training
    assert network.get_parameter("features.0.0.weight").grad is not None


def test_a_network_without_features_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear has no features"):
        pooled_features(nn.Linear(3, 2), torch.rand(1, 3, 8, 8))
