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
    if hasattr(network, "forward_features") and hasattr(network, "forward_head"):
        pooled: Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
        return pooled
    body = getattr(network, "features", None)
    if not isinstance(body, nn.Module):
        raise ConfigError(
            f"{type(network).__name__} has no features to pool", "Pass a MobileNet of torchvision or a network of timm."
        )
    maps: Tensor = body(images)
    return maps.mean(dim=(2, 3))
