"""Finished models that a training follows besides its labels (knowledge distillation)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from lentigo.core.config import DistillationConfig
from lentigo.core.errors import ConfigError
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.preprocess import Preprocess
from lentigo.models.checkpoint import ModelSpec, load_checkpoint
from lentigo.training.events import Listener, Message


class Teachers:
    """Images (N, 3, S, S) as the student sees them -> the teachers' mean softened probabilities (N, C).

    Teachers answer without their prior correction, since the student brings its own; a logit-adjusted loss, which has
    none, takes no teachers but the model that a mining round continues (see `Config`). They see the student's very
    image, mixed and augmented (function matching: Beyer et al., arXiv 2106.05237).
    """

    def __init__(self, networks: Sequence[nn.Module], temperature: float) -> None:
        self.networks, self.temperature = list(networks), temperature

    def __len__(self) -> int:
        return len(self.networks)

    def __call__(self, images: Tensor) -> Tensor:
        total = images.new_zeros((len(images), NUM_CLASSES), dtype=torch.float32)
        with torch.no_grad():
            for network in self.networks:
                total += functional.softmax(network(images).float() / self.temperature, dim=1)
        return total / len(self.networks)


def load_teachers(
    config: DistillationConfig, preprocess: Preprocess, catalog_sha256: str, device: torch.device, listen: Listener
) -> Teachers:
    """The configured teachers on `device`, none where there are none.

    Raises:
        CheckpointError: for a teacher that cannot be read.
        ConfigError: for a weight without teachers, and a teacher of another colour mode or normalisation.
    """
    if config.weight and not config.teachers:
        raise ConfigError(
            f"distillation.weight is {config.weight:g}, but there are no teachers",
            "Pass --set 'distillation.teachers=[\"RUN/checkpoints/best.safetensors\"]', or set the weight to 0.",
        )
    networks = []
    for path in config.teachers:
        network, spec = load_checkpoint(Path(path), corrected=False)
        _check_contract(path, spec, preprocess)
        if spec.provenance.get("catalog_sha256") != catalog_sha256:
            caution = "was trained on other rows; where those share lesions with val or test, scores are too good"
            listen(Message(f"caution: the teacher {Path(path).name} {caution}"))
        networks.append(network.requires_grad_(False).to(device, memory_format=torch.channels_last))
    if networks:
        names = "model" if len(networks) == 1 else "models"
        listen(Message(f"distilling from {len(networks)} {names}, weight {config.weight:g}, T {config.temperature:g}"))
    return Teachers(networks, config.temperature)


def _check_contract(path: str, spec: ModelSpec, preprocess: Preprocess) -> None:
    theirs, ours = spec.preprocess, preprocess
    if (theirs.color_mode, theirs.mean, theirs.std) != (ours.color_mode, ours.mean, ours.std):
        raise ConfigError(
            f"the teacher {path} takes {theirs.color_mode} images normalised by {theirs.mean} and {theirs.std}; "
            f"this recipe makes {ours.color_mode} images, {ours.mean} and {ours.std}",
            "Take teachers of the same colour mode and normalisation.",
        )
