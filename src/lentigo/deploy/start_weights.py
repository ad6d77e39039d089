"""What goes with an export to train from: the checkpoint in half precision, and the terms of its weights."""

from __future__ import annotations

from pathlib import Path

from lentigo.models.checkpoint import load_tensors, save_tensors

NON_COMMERCIAL = "CC BY-NC 4.0"
_NON_COMMERCIAL_URL = "https://creativecommons.org/licenses/by-nc/4.0/"


def save_start(checkpoint: Path, path: Path) -> Path:
    """Write a checkpoint's floating-point tensors as float16, all else as it is.

    Raises:
        CheckpointError: where the checkpoint is missing or damaged.
    """
    tensors, metadata = load_tensors(checkpoint)
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return save_tensors(path, halves, metadata)


def licence_text(licence: str) -> str:
    """The file beside the weights that says on what terms they may be used."""
    lines = [licence, ""]
    if NON_COMMERCIAL in licence:
        lines += [
            f"{NON_COMMERCIAL}: {_NON_COMMERCIAL_URL}",
            "Share and adapt for non-commercial purposes, with credit: name Lentigo, and HAM10000 (Tschandl, Rosendahl",
            "and Kittler, Scientific Data 5, 180161, 2018), whose images the weights were trained on.",
            "Models that are trained from these weights are adaptations of them.",
            "",
        ]
    lines += ["Research use only. Not a medical device, not a diagnosis. The program's code has a licence of its own."]
    return "\n".join(lines) + "\n"
