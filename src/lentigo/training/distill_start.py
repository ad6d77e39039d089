"""The file that a distillation makes: a student without its classifier, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lentigo.core.environment import describe_environment
from lentigo.data.unlabelled import UnlabelledImages
from lentigo.models.checkpoint import save_tensors
from lentigo.models.network import find_architecture
from lentigo.models.weights import START_KEY
from lentigo.training.distill_settings import DistillSettings
from lentigo.training.state import Progress


def write_start(
    path: Path,
    student: nn.Module,
    settings: DistillSettings,
    images: UnlabelledImages,
    progress: Progress,
    *,
    steps: int,
    catalog_sha256: str,
) -> Path:
    """Write weights in half precision and metadata, atomically; names and digests only, no folders."""
    last: Mapping[str, float] = progress.rows[-1] if progress.rows else {}
    facts: dict[str, Any] = {
        "format_version": 1,
        "architecture": settings.student,
        "teachers": [
            {"architecture": teacher.architecture, "file": teacher.file, "sha256": teacher.sha256}
            for teacher in settings.teachers
        ],
        "licence_note": settings.licence_note,
        "images": len(images.train),
        "images_kept_apart": len(images.held_out),
        "photographs": images.photographs,
        "data": images.train.name,
        "catalog_sha256": catalog_sha256,
        "synthetic": images.train.synthetic,
        "sizes_px": list(settings.sizes_px),
        "epochs": progress.epoch,
        "epochs_planned": settings.epochs,
        "steps": steps,
        "seed": settings.seed,
        "held_out_loss": last.get("held_out_loss"),
        "held_out_explained": last.get("held_out_explained"),
        "commit": describe_environment()["commit"],
    }
    return save_tensors(path, start_tensors(student, settings.student), {START_KEY: facts})


def start_tensors(student: nn.Module, architecture: str) -> dict[str, Tensor]:
    """All but the classifier as float16; a tensor that float16 cannot hold, and counters, stay as they are."""
    prefix = find_architecture(architecture).head_prefix
    tensors: dict[str, Tensor] = {}
    for name, tensor in student.state_dict().items():
        if not name.startswith(prefix):
            half = tensor.half() if tensor.is_floating_point() else tensor
            tensors[name] = half if half.isfinite().all() else tensor
    return tensors
