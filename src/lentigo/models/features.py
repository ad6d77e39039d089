"""What a network sees in an image before its classifier: one vector per image."""

from __future__ import annotations

from torch import Tensor, nn

from lentigo.core.errors import ConfigError


def pooled_features(network: nn.Module, images: Tensor) -> Tensor:
    """The last feature map averaged over space: (N, 3, S, S) -> (N, D); the network's mode is left as it is.

    torchvision's MobileNets: `features`, D = 1280 for V2 and 960 for V3. timm's networks: `forward_features` and
    their own pooling, without the classifier.

    Raises:
        ConfigError: for a network with neither.
    """
    if _is_timm(network):
        pooled: Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
        return pooled
    maps: Tensor = _body(network)(images)
    return maps.mean(dim=(2, 3))


def logits_and_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the network and `pooled_features` give, from one pass: (N, 3, S, S) -> (N, C) and (N, D).

    Raises:
        ConfigError: as `pooled_features`.
    """
    if _is_timm(network):
        maps: Tensor = network.forward_features(images)
        return network.forward_head(maps), network.forward_head(maps, pre_logits=True)
    kept: list[Tensor] = []
    with _body(network).register_forward_hook(lambda module, inputs, output: kept.append(output)):
        logits: Tensor = network(images)
    return logits, kept[0].mean(dim=(2, 3))


def _is_timm(network: nn.Module) -> bool:
    return hasattr(network, "forward_features") and hasattr(network, "forward_head")


def _body(network: nn.Module) -> nn.Module:
    body = getattr(network, "features", None)
    if not isinstance(body, nn.Module):
        raise ConfigError(
            f"{type(network).__name__} has no features to pool", "Pass a MobileNet of torchvision or a network of timm."
        )
    return body
