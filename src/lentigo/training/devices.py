"""Where to train, and Fabric launched there."""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from lentigo.core.config import Config
from lentigo.core.errors import ConfigError


@dataclass(frozen=True)
class Devices:
    """Where to train: `accelerator` auto takes a CUDA GPU where there is one, else the CPU; `devices` a node."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    num_nodes: int = 1


def open_fabric(config: Config, where: Devices) -> Fabric:
    """Fabric, launched; a request that the machine cannot meet is a ConfigError.

    Under torchrun the processes exist already; otherwise Fabric starts the others of this node.
    """
    accelerator = where.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda":
        found = torch.cuda.device_count()
        if found < where.devices:
            raise ConfigError(
                f"--devices {where.devices}: found {found} CUDA devices",
                "Pass fewer devices, or --accelerator cpu.",
            )
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--accelerator mps: this machine has none", "Pass --accelerator cpu or cuda.")
    wanted = where.devices * where.num_nodes
    if TorchElasticEnvironment.detect() and (started := TorchElasticEnvironment().world_size()) != wanted:
        raise ConfigError(
            f"torchrun started {started} processes, but --devices {where.devices} x "
            f"--num-nodes {where.num_nodes} asks for {wanted}",
            "Pass torchrun's --nproc-per-node as --devices and its --nnodes as --num-nodes.",
        )
    precision = config.training.precision
    if precision == "auto":
        precision = "bf16" if accelerator == "cuda" else "32"
    if precision == "16" and accelerator == "cpu":
        raise ConfigError("training.precision = 16 needs a GPU; found a CPU", "Pass training.precision=32 or bf16.")
    fabric = Fabric(
        accelerator=accelerator,
        devices=where.devices,
        num_nodes=where.num_nodes,
        # Each process keeps its own BatchNorm statistics and the loop averages them; DDP's default would
        # overwrite them with the first process's at every step.
        strategy=DDPStrategy(broadcast_buffers=False) if wanted > 1 else "auto",
        precision={"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[precision],
    )
    fabric.launch()
    if wanted > 1:
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """Stop gloo's threads before the interpreter ends; left running, they abort the process now and then."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def judging_device(where: Devices) -> str:
    """Where single images are scored outside a training: as `where` says, auto as for a training."""
    if where.accelerator != "auto":
        return where.accelerator
    return "cuda" if torch.cuda.is_available() else "cpu"
