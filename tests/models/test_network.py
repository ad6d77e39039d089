"""Networks: shapes, heads, names of parts, freezing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lentigo.core.errors import ConfigError, MissingExtraError
from lentigo.core.recipes import load_recipe
from lentigo.models import network as network_module
from lentigo.models.network import (
    ARCHITECTURES,
    build_network,
    find_architecture,
    freeze_backbone,
    set_batch_norm_momentum,
    set_training_mode,
)

NAMES = [*ARCHITECTURES, "timm:efficientnet_lite0"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("timm:"):
        pytest.importorskip("timm")
    return str(request.param)


def test_parts_are_where_the_table_says(name: str) -> None:
    architecture = find_architecture(name)
    network = build_network(name, 7, 0.35).eval()
    spatial: list[torch.Tensor] = []
    network.get_submodule(architecture.cam_layer).register_forward_hook(lambda *call: spatial.append(call[-1]))
    with torch.inference_mode():
        logits = network(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 7)
    assert spatial[0].shape[-2:] == (2, 2), "the last layer with spatial extent at 64 px"
    head = network.get_submodule(architecture.head)
    assert isinstance(head, nn.Linear)
    assert head.out_features == 7
    assert architecture.head.startswith(architecture.head_prefix.rstrip("."))
    first_of_head = next(p for n, p in network.named_parameters() if n.startswith(architecture.head_prefix))
    assert first_of_head.shape[1] == architecture.feature_dim
    assert len(list(network.get_submodule(architecture.blocks).children())) > 5


@pytest.mark.parametrize("recipe", ["paper-v2", "paper-v3"])
def test_heads_of_the_report(recipe: str) -> None:
    model = load_recipe(recipe).model
    network = build_network(model.architecture, 7, model.dropout)
    dropout, linear = list(network.get_submodule("classifier").children())[-2:]
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.2
    assert isinstance(linear, nn.Linear)
    assert (linear.in_features, linear.out_features) == (1280, 7)


def test_dropout_is_before_the_last_layer(name: str) -> None:
    network = build_network(name, 7, 0.9).train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(network(images), network(images))
        still = build_network(name, 7, 0.0).eval()
        assert torch.equal(still(images), still(images))


def test_weights_follow_the_generator() -> None:
    torch.manual_seed(3)
    first = build_network("mobilenet_v2", 7).state_dict()
    torch.manual_seed(3)
    again = build_network("mobilenet_v2", 7).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_freezing_the_backbone(name: str) -> None:
    architecture = find_architecture(name)
    with torch.device("meta"):
        network = build_network(name, 7)
    freeze_backbone(network, architecture, True)
    learning = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning == {key for key, _ in network.named_parameters() if key.startswith(architecture.head_prefix)}
    assert learning
    freeze_backbone(network, architecture, False)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    "backbone_frozen, freeze_norm, held", [(False, False, 0), (True, False, 52), (False, True, 52)]
)
def test_modes_of_batch_norm(backbone_frozen: bool, freeze_norm: bool, held: int) -> None:
    with torch.device("meta"):
        network = build_network("mobilenet_v2", 7)
    network.eval()
    architecture = find_architecture("mobilenet_v2")
    set_training_mode(network, architecture, backbone_frozen=backbone_frozen, freeze_norm=freeze_norm)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert sum(not module.training for module in norms) == held
    assert len(norms) == 52
    assert all(module.training for module in network.modules() if isinstance(module, nn.Dropout))


def test_momentum() -> None:
    with torch.device("meta"):
        network = build_network("mobilenet_v3_large", 7)
    assert {module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {0.01}
    set_batch_norm_momentum(network, 0.1)
    assert {module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="unknown architecture 'mobilenet_v4'") as error:
        find_architecture("mobilenet_v4")
    assert "Did you mean 'mobilenet_v" in error.value.remedy
    with pytest.raises(ConfigError, match="unknown architecture 'zzz'"):
        find_architecture("zzz")


def test_unknown_timm_name() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="timm has no network 'efficientnet_b99'") as error:
        find_architecture("timm:efficientnet_b99")
    assert "efficientnet_" in error.value.remedy


def test_timm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="timm") as error:
        find_architecture("timm:efficientnet_lite0")
    assert "lentigo[timm]" in error.value.remedy


def test_timm_brings_its_own_normalisation() -> None:
    pytest.importorskip("timm")
    assert find_architecture("timm:efficientnet_lite0").mean == (0.485, 0.456, 0.406)
    assert find_architecture("timm:mobilenetv3_large_100.miil_in21k").mean == (0.0, 0.0, 0.0)
