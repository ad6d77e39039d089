"""Mixup and cutmix: two images share one input, their labels share one target."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import CutMix, MixUp, RandomChoice

from lentigo.core.config import RegularizationConfig
from lentigo.core.taxonomy import NUM_CLASSES


class Mixer:
    """(images (N, 3, S, S), labels (N,)) -> the same images and labels, or mixed ones with targets (N, C).

    Mixup: Zhang et al., arXiv 1710.09412. CutMix: Yun et al., arXiv 1905.04899. With both on, each batch takes
    one of them at random.
    """

    def __init__(self, config: RegularizationConfig) -> None:
        kinds = []
        if config.mixup_alpha:
            kinds.append(MixUp(alpha=config.mixup_alpha, num_classes=NUM_CLASSES))
        if config.cutmix_alpha:
            kinds.append(CutMix(alpha=config.cutmix_alpha, num_classes=NUM_CLASSES))
        self._mix = RandomChoice(kinds) if kinds else None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Draws from torch's global generator; a single image stays as it is."""
        if self._mix is None or len(images) < 2:
            return images, labels
        mixed, targets = self._mix(images, labels)
        return mixed.contiguous(memory_format=_layout(images)), targets


def _layout(images: Tensor) -> torch.memory_format:
    if images.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
