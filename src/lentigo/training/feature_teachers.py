"""Teachers of a distillation: frozen networks whose pooled features a student learns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lentigo.core.config import Section
from lentigo.core.errors import CheckpointError, ConfigError, first_five
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.dataset import LesionDataset
from lentigo.models.checkpoint import weights_digest
from lentigo.models.features import pooled_features
from lentigo.models.network import Architecture, build_network, find_architecture
from lentigo.models.weights import load_weights, read_tensors
from lentigo.training.inference import Progress

STATISTICS_IMAGES = 2048
"""Images from which means and deviations are estimated; with these both are known to about 2 %."""


class TeacherFile(Section):
    """One teacher as settings name it; `sha256` is the digest of its weights when the distillation began.

    Settings of earlier versions have the digest of the whole file there.
    """

    architecture: str
    weights: str
    sha256: str

    @property
    def file(self) -> str:
        """The file's name without its folder."""
        return Path(self.weights).name


def describe_teacher(architecture: str, weights: Path) -> TeacherFile:
    """A teacher with the digest of its weights; CheckpointError where there are none, ConfigError for its name."""
    find_architecture(architecture)
    if not weights.is_file():
        raise CheckpointError(f"no weights file {weights}", "Pass --teacher ARCHITECTURE=FILE with an existing file.")
    digest = weights_digest(read_tensors(weights))
    return TeacherFile(architecture=architecture, weights=str(weights.resolve()), sha256=digest)


def _is_unchanged(path: Path, sha256: str) -> bool:
    """Not of the file alone, as earlier versions had it: `lentigo evaluate` adds a calibration to a run's weights."""
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() == sha256:
            return True
    return weights_digest(read_tensors(path)) == sha256


@dataclass(frozen=True)
class Teacher:
    """A frozen network in evaluation mode, with the normalisation that it was trained with.

    `mean` and `std` are (3, 1, 1) on the network's device; `trained_on` as in WeightsReport.
    """

    name: str
    network: nn.Module
    mean: Tensor
    std: Tensor
    trained_on: str

    def features(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] -> pooled features (N, D) float32, without gradient."""
        with torch.no_grad():
            return pooled_features(self.network, (images - self.mean) / self.std).float()


def open_teacher(described: TeacherFile, device: torch.device) -> Teacher:
    """Build and fill the network.

    Raises:
        CheckpointError: where the file is gone, changed, does not fit, or lacks layers below the classifier.
    """
    path, architecture = Path(described.weights), find_architecture(described.architecture)
    if not path.is_file() or not _is_unchanged(path, described.sha256):
        what = "changed since the distillation began" if path.is_file() else "is gone"
        raise CheckpointError(f"the teacher's file {path} {what}", "Restore the file, or start a new distillation.")
    with torch.random.fork_rng(devices=[]):
        network = build_network(described.architecture, NUM_CLASSES)
    report = load_weights(network, described.architecture, architecture, described.weights)
    missing = [name for name in report.missing if not name.startswith(architecture.head_prefix)]
    if missing:
        raise CheckpointError(
            f"{path.name} lacks {len(missing)} tensors of {described.architecture}: {first_five(missing)}",
            "A teacher must be complete below its classifier.",
        )
    network.eval().requires_grad_(False)
    mean, std = normalization(architecture, device)
    network.to(device=device, memory_format=torch.channels_last)
    return Teacher(described.architecture, network, mean, std, report.trained_on)


def normalization(architecture: Architecture, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation as (3, 1, 1) float32 on the device."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (architecture.mean, architecture.std))
    return mean, std


def clean_batches(data: LesionDataset, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """All images in catalogue order, unchanged: (N, 3, S, S) float32 in [0, 1], in channels-last layout."""
    for start in range(0, len(data), batch_size):
        images = torch.stack([data[index].image for index in range(start, min(start + batch_size, len(data)))])
        yield images.to(device, memory_format=torch.channels_last)


def clean_features(
    teachers: Sequence[Teacher], data: LesionDataset, batch_size: int, device: torch.device, progress: Progress
) -> list[Tensor]:
    """Features (N, D) of clean images, one tensor a teacher."""
    parts: list[list[Tensor]] = [[] for _ in teachers]
    done = 0
    for images in clean_batches(data, batch_size, device):
        for part, teacher in zip(parts, teachers, strict=True):
            part.append(teacher.features(images))
        done += len(images)
        progress(done, len(data))
    return [torch.cat(part) for part in parts]


def standardization(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (D,) of features (N, D).

    A dimension that hardly moves keeps a floor of a hundredth of the median deviation: its noise is no lesson.

    Raises:
        ConfigError: where most dimensions do not move at all.
    """
    std, mean = torch.std_mean(features, dim=0)
    floor = std.median() / 100
    if not floor > 0:
        raise ConfigError(
            "the teacher's features are the same for every image",
            "Check the teacher's file, raise --size, or pass more than one image.",
        )
    return mean, std.clamp_min(floor)
