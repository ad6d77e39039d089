"""Networks by name. They are torchvision's or timm's own modules, so that published weights fit without renaming."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import nn
from torchvision.models import mobilenet_v2, mobilenet_v3_large
from torchvision.models.mobilenetv2 import MobileNet_V2_Weights
from torchvision.models.mobilenetv3 import MobileNet_V3_Large_Weights

from lentigo.core.errors import ConfigError, MissingExtraError
from lentigo.data.preprocess import IMAGENET_MEAN, IMAGENET_STD

TIMM_PREFIX = "timm:"
_TIMM_NORMALIZATION = {"tf_efficientnet_lite0": ((127 / 255,) * 3, (128 / 255,) * 3)}
"""(mean, std) where timm states another than that of the published training: (x * 255 - 127) / 128, not 127.5."""


@dataclass(frozen=True)
class Architecture:
    """How to build a network and what its parts are called.

    `head` is the last linear layer's name; `head_prefix` covers all that trains in the head-first phase. `blocks`
    names the module whose children are the stages from input to output, empty for the network itself; `cam_layer`
    is the last one with spatial extent.
    """

    build: Callable[[int, float], nn.Module]
    head: str
    head_prefix: str
    blocks: str
    cam_layer: str
    feature_dim: int
    weights_url: str = ""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def _build_mobilenet_v2(num_classes: int, dropout: float) -> nn.Module:
    return mobilenet_v2(num_classes=num_classes, dropout=dropout)


def _build_mobilenet_v3_large(num_classes: int, dropout: float) -> nn.Module:
    return mobilenet_v3_large(num_classes=num_classes, dropout=dropout)


ARCHITECTURES: dict[str, Architecture] = {
    "mobilenet_v2": Architecture(
        _build_mobilenet_v2,
        head="classifier.1",
        head_prefix="classifier.",
        blocks="features",
        cam_layer="features.18",
        feature_dim=1280,
        weights_url=MobileNet_V2_Weights.IMAGENET1K_V2.url,
    ),
    "mobilenet_v3_large": Architecture(
        _build_mobilenet_v3_large,
        head="classifier.3",
        head_prefix="classifier.",
        blocks="features",
        cam_layer="features.16",
        feature_dim=960,
        weights_url=MobileNet_V3_Large_Weights.IMAGENET1K_V2.url,
    ),
}


def find_architecture(name: str) -> Architecture:
    """The entry of ARCHITECTURES, or a timm network as `timm:NAME` (extra `timm`).

    Raises:
        ConfigError: for an unknown name, with the nearest known one.
        MissingExtraError: for a timm name without timm.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.startswith(TIMM_PREFIX):
        return _timm_architecture(name.removeprefix(TIMM_PREFIX))
    near = difflib.get_close_matches(name, ARCHITECTURES, n=1, cutoff=0.4)
    raise ConfigError(
        f"unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)} and {TIMM_PREFIX}NAME",
        f"Did you mean {near[0]!r}?" if near else "Pass one of these names.",
    )


def build_network(name: str, num_classes: int, dropout: float = 0.2) -> nn.Module:
    """A network with fresh random weights (torch's global generator): (N, 3, S, S) float32 -> (N, num_classes)."""
    return find_architecture(name).build(num_classes, dropout)


def set_batch_norm_momentum(network: nn.Module, momentum: float) -> None:
    """Overwrite the momentum of every BatchNorm layer."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = momentum


def freeze_backbone(network: nn.Module, architecture: Architecture, frozen: bool) -> None:
    """Let only the head learn, or everything."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not frozen or name.startswith(architecture.head_prefix))


def set_training_mode(
    network: nn.Module, architecture: Architecture, *, backbone_frozen: bool, freeze_norm: bool
) -> None:
    """Training mode, with BatchNorm statistics held where the layer (or everything below the head) is frozen."""
    network.train()
    for name, module in network.named_modules():
        below_head = not f"{name}.".startswith(architecture.head_prefix)
        held = freeze_norm or (backbone_frozen and below_head)
        if held and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def parameter_depths(network: nn.Module, architecture: Architecture) -> dict[str, int]:
    """Distance from the head per parameter name: 0 for the head, 1 for the last block, and so on.

    Layers between the blocks and the head count with the last block, layers before the blocks as the deepest.
    """
    prefix = f"{architecture.blocks}." if architecture.blocks else ""
    body = network.get_submodule(architecture.blocks).named_children()
    names = [f"{prefix}{name}." for name, module in body if any(True for _ in module.parameters())]
    block_names = [name for name in names if not name.startswith(architecture.head_prefix)]
    depths: dict[str, int] = {}
    depth = len(block_names) + 1
    for name, _ in network.named_parameters():
        inside = [i for i, prefix in enumerate(block_names) if name.startswith(prefix)]
        depth = len(block_names) - inside[0] if inside else depth
        depths[name] = 0 if name.startswith(architecture.head_prefix) else depth
    return depths


def _timm_architecture(name: str) -> Architecture:
    if find_spec("timm") is None:
        raise MissingExtraError("timm", "timm")
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise ConfigError(f"timm has no network {name!r}", f"Try one of {', '.join(near) or 'timm.list_models()'}.")

    def build(num_classes: int, dropout: float) -> nn.Module:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, drop_rate=dropout)
        return network

    with torch.device("meta"):
        probe = timm.create_model(name, pretrained=False)
    facts = probe.pretrained_cfg
    head = str(facts["classifier"])
    children = [child for child, module in probe.named_children() if any(True for _ in module.parameters())]
    # ResNets and the like have no container: their stages are children of the network itself.
    blocks = next((child for child in ("blocks", "stages", "layers", "features") if child in children), "")
    body = [child for child in children if child != head.split(".")[0]]
    mean, std = _TIMM_NORMALIZATION.get(name, (facts["mean"], facts["std"]))
    return Architecture(
        build,
        head=head,
        head_prefix=f"{head.split('.')[0]}.",
        blocks=blocks,
        cam_layer=blocks or body[-1],
        feature_dim=int(probe.num_features),
        mean=_three(mean),
        std=_three(std),
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return float(first), float(second), float(third)
