"""What a network costs to keep and to run: parameters, multiplications, size of its weights, time for one image.

torch is imported by the functions that need it, so that tables of costs can be read without it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

_BYTES_PER_MB = 1e6
_FLOAT32_BYTES, _FLOAT16_BYTES = 4, 2


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one answer. `macs` are multiply-accumulates of convolutions and matrix products, half the usual FLOPs.

    `parameters` are the trained numbers; `float32_mb` and `float16_mb` the weights in 10^6 bytes with the BatchNorm
    statistics that inference needs too, without file headers.
    """

    parameters: int
    macs: int
    float32_mb: float
    float16_mb: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds for one answer: the median of `n` warm runs and the quartiles around it, with `threads` threads."""

    median_ms: float
    low_ms: float
    high_ms: float
    n: int
    threads: int


def network_cost(network: nn.Module, size_px: int, views: int = 1) -> Cost:
    """Cost of one image of `size_px` squared, answered from `views` turned copies of it.

    The network may lie on torch's meta device: nothing is computed there.
    """
    numbers = sum(tensor.numel() for tensor in network.state_dict().values() if tensor.is_floating_point())
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=views * count_macs(network, size_px),
        float32_mb=numbers * _FLOAT32_BYTES / _BYTES_PER_MB,
        float16_mb=numbers * _FLOAT16_BYTES / _BYTES_PER_MB,
    )


@cache
def architecture_cost(name: str, size_px: int, num_classes: int, views: int = 1) -> Cost:
    """Cost of a network that is built by name, without memory for its weights.

    Raises:
        ConfigError: for an unknown name.
        MissingExtraError: for a timm name without timm.
    """
    import torch

    from lentigo.models.network import build_network

    with torch.device("meta"):
        return network_cost(build_network(name, num_classes), size_px, views)


def total_cost(costs: Iterable[Cost]) -> Cost:
    """Cost of an answer for which several networks are asked one after the other."""
    each = list(costs)
    return Cost(
        parameters=sum(cost.parameters for cost in each),
        macs=sum(cost.macs for cost in each),
        float32_mb=math.fsum(cost.float32_mb for cost in each),
        float16_mb=math.fsum(cost.float16_mb for cost in each),
    )


def count_macs(network: nn.Module, size_px: int) -> int:
    """Multiply-accumulates for one image (1, 3, S, S), by torch's counter of operations; its mode is restored.

    Convolutions, matrix products and attention count, as in published numbers; additions, activations and
    normalisation do not.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    image, was_training = _image(network, size_px), network.training
    network.eval()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        network(image)
    network.train(was_training)
    return int(counter.get_total_flops()) // 2


def measure_latency(
    network: nn.Module, size_px: int, *, views: int = 1, channels_last: bool = True, runs: int = 30, warm_up: int = 5
) -> Latency:
    """Time for one image (1, 3, S, S) where the network lies, in float32 and torch's eager mode, mode restored.

    Each run answers `views` copies one after the other, as `predict_logits` does. The number is this machine's at
    this moment: it rises where other programs compute.
    """
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    image, was_training = _image(network, size_px).to(memory_format=layout), network.training
    network.eval()
    times_ms = []
    with torch.inference_mode():
        for _ in range(warm_up + runs):
            start = time.perf_counter()
            for _ in range(views):
                network(image)
            if image.is_cuda:
                torch.cuda.synchronize(image.device)
            times_ms.append(1000.0 * (time.perf_counter() - start))
    network.train(was_training)
    low, median, high = np.percentile(times_ms[warm_up:], [25, 50, 75])
    return Latency(float(median), float(low), float(high), runs, torch.get_num_threads())


def _image(network: nn.Module, size_px: int) -> Tensor:
    import torch

    # Zeros stay zero or of usual size in a network with random weights: no denormal numbers, which take longer.
    return torch.zeros((1, 3, size_px, size_px), device=next(network.parameters()).device)
