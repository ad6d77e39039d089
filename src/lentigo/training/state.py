"""Everything a training is, at a step boundary, in one atomic file: weights, average, optimiser, progress.

Random streams need no saving: each is derived from the seed and the step it is for.
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lentigo.core.config import Config
from lentigo.core.errors import CheckpointError, first_five
from lentigo.core.files import write_text_atomic
from lentigo.core.run_dir import RunDir
from lentigo.models.checkpoint import load_tensors, save_tensors


@dataclass
class Progress:
    """Where a training stands; all that is not a tensor.

    `epoch` is 0-based and `batch` counts finished batches within it; the sums cover those batches.
    `loss_scaler` is empty but in 16-bit precision.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    elapsed_s: float = 0.0
    best_score: float | None = None
    best_epoch: int = -1
    finished: str = ""
    rows: list[dict[str, float]] = field(default_factory=list)
    loss_scaler: dict[str, Any] = field(default_factory=dict)
    config_digest: str = ""
    catalog_sha256: str = ""
    start: str = ""


@dataclass
class TrainingState:
    """The moving parts of a training."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    progress: Progress

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the average where there is one."""
        return self.network if self.average is None else self.average.module

    def save(self, path: Path) -> None:
        """Write all of it atomically."""
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        for parameter, values in self.optimizer.state.items():
            tensors |= {f"optimizer/{key}/{names[id(parameter)]}": value for key, value in values.items()}
        save_tensors(path, tensors, {"progress": asdict(self.progress)})

    def load(self, path: Path) -> None:
        """Restore it in place; CheckpointError where the file does not fit."""
        tensors, metadata = load_tensors(path)
        try:
            self.progress = Progress(**metadata["progress"])
            self.network.load_state_dict(_part(tensors, "network/"))
            if self.average is not None:
                self.average.load_state_dict(_part(tensors, "average/"))
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} does not fit this run: {first_five(str(error).splitlines()[:2])}",
                "Train again from the start with a new --name.",
            ) from None
        parameters = dict(self.network.named_parameters())
        for name, tensor in _part(tensors, "optimizer/").items():
            key, _, parameter_name = name.partition("/")
            parameter = parameters[parameter_name]
            # AdamW keeps its step counter on the CPU and its moments beside the weights.
            value = tensor if key == "step" else tensor.to(parameter.device)
            if value.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
                value = value.contiguous(memory_format=torch.channels_last)
            self.optimizer.state[parameter][key] = value


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


WITHOUT_EFFECT: dict[str, Any] = {
    "about": True,
    "data": {"cache", "cache_limit_mb", "num_workers"},
    "training": {"time_limit_min", "checkpoint_min"},
}
"""Settings that change no result: a recipe's description, where images are cached, limits on time and saving."""


def config_digest(config: Config) -> str:
    """Digest of all settings that change the result.

    Settings at their defaults are left out, so that a new key does not part a run from its saved state.
    """
    text = config.model_dump_json(exclude_defaults=True, exclude=WITHOUT_EFFECT)
    return hashlib.sha256(text.encode()).hexdigest()


def write_log(run: RunDir, rows: list[dict[str, float]]) -> None:
    """log.csv from all finished epochs."""
    buffer = io.StringIO()
    columns = list(rows[0]) if rows else ["epoch"]
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="raise")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(run.log, buffer.getvalue())
