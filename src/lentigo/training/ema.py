"""The running average of weights and BatchNorm statistics, whose network is judged and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

WARMUP_STEPS = 10


def build_average(network: nn.Module, decay: float) -> AveragedModel:
    """torch's AveragedModel over parameters and buffers, with a decay that warms up so early weights fade fast."""
    average = AveragedModel(network, multi_avg_fn=_averaging(decay), use_buffers=True)
    average.requires_grad_(False)
    return average


def _averaging(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        steps = int(count)
        weight = 1 - min(decay, (1 + steps) / (WARMUP_STEPS + steps))
        with torch.no_grad():
            for mean, value in zip(averaged, current, strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, weight)
                else:
                    mean.copy_(value)

    return average
