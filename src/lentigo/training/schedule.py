"""Parameter groups and the learning rate over time."""

from __future__ import annotations

import math

import torch
from torch import nn

from lentigo.core.config import OptimizerConfig
from lentigo.models.network import Architecture, parameter_depths

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1e-4


def build_optimizer(network: nn.Module, architecture: Architecture, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with one group per (depth, decayed or not); each group carries its `base_rate`."""
    depths = parameter_depths(network, architecture)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decayed = config.decay_norm or parameter.ndim > 1
        groups.setdefault((depths[name], decayed), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": config.learning_rate * config.layer_decay**depth,
            "base_rate": config.learning_rate * config.layer_decay**depth,
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (depth, decayed), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings)


def rate_factor(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Factor on every group's base rate at a 0-based step, in (0, 1].

    cosine and constant rise linearly; one_cycle rises from 1/25 and falls to 1e-4 on cosines (Smith & Topin,
    arXiv 1708.07120).
    """
    warmup = config.warmup_fraction * total_steps
    if config.schedule == "one_cycle":
        if step < warmup:
            return _cosine(ONE_CYCLE_START, 1.0, step / warmup)
        return _cosine(1.0, ONE_CYCLE_END, (step - warmup) / max(1.0, total_steps - 1 - warmup))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    return _cosine(1.0, ONE_CYCLE_END, (step - warmup) / max(1.0, total_steps - 1 - warmup))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to factor times its base rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
