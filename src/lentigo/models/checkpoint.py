"""Weights and what is needed to use them, in one safetensors file: no pickle, nothing executed on loading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lentigo.core.errors import CheckpointError, ConfigError, first_five
from lentigo.core.files import write_atomic
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.preprocess import Preprocess
from lentigo.models.network import build_network, find_architecture

FORMAT_VERSION = 1
_METADATA_KEY = "lentigo"


class ModelSpec(BaseModel):
    """All but the weights: architecture, class order, the evaluation contract and where the weights come from.

    `logit_shift` (empty or one number a class) is the prior correction: `load_checkpoint` adds it to the last
    layer's bias. The file keeps the weights as they were trained, so that training goes on from it unshifted.
    `views` is the test-time augmentation that the model is judged with. `calibration` holds what was fitted on val
    (`lentigo.evaluation.calibration.Calibration` as plain values); empty for a model that was not judged yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    architecture: str
    dropout: float = 0.2
    classes: tuple[str, ...] = CLASS_CODES
    preprocess: Preprocess
    logit_shift: tuple[float, ...] = ()
    views: Literal[1, 2, 4, 8] = 1
    calibration: dict[str, Any] = {}
    provenance: dict[str, str] = {}


def save_checkpoint(path: Path, weights: Mapping[str, Tensor], spec: ModelSpec) -> Path:
    """Write weights and spec atomically."""
    return save_tensors(path, weights, {_METADATA_KEY: spec.model_dump(mode="json")})


def load_checkpoint(path: Path, *, corrected: bool = True) -> tuple[nn.Module, ModelSpec]:
    """The network in evaluation mode, and its spec; `corrected` applies the prior correction.

    Raises:
        CheckpointError: where the file is missing, damaged, foreign, newer than this version, or does not fit.
    """
    weights, metadata = load_tensors(path)
    description = metadata.get(_METADATA_KEY)
    if not isinstance(description, dict):
        raise CheckpointError(
            f"{path} holds weights but no Lentigo model description",
            "Pass it to `lentigo train --weights` as a start, or pass a run's best.safetensors here.",
        )
    version = description.get("format_version", 0)
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}; this version reads {FORMAT_VERSION}", "Update Lentigo."
        )
    try:
        spec = ModelSpec.model_validate(description)
        network = build_network(spec.architecture, len(spec.classes), spec.dropout)
    except (ValidationError, ConfigError) as error:
        raise CheckpointError(f"{path}: unusable model description: {error}", "Train or export it again.") from None
    if spec.classes != CLASS_CODES:
        raise CheckpointError(
            f"{path} knows the classes {', '.join(spec.classes)}; expected {', '.join(CLASS_CODES)}",
            "Use a model of these seven classes.",
        )
    _load_exactly(network, weights, path)
    if corrected and spec.logit_shift:
        bias = network.get_parameter(f"{find_architecture(spec.architecture).head}.bias")
        with torch.no_grad():
            bias += torch.tensor(spec.logit_shift)
    return network.eval(), spec


def add_calibration(path: Path, calibration: Mapping[str, Any]) -> Path:
    """Write a checkpoint anew with its calibration; the weights stay bit for bit.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    spec = load_checkpoint(path)[1]
    if spec.calibration == calibration:
        return path
    return save_checkpoint(path, load_tensors(path)[0], spec.model_copy(update={"calibration": dict(calibration)}))


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of names, types, shapes and bytes, in the order of the names: that of weights, not of their file.

    `add_calibration` changes the file and not the weights.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\t{tensor.dtype}\t{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())  # numpy knows no bfloat16
    return digest.hexdigest()


def is_model(path: Path) -> bool:
    """Whether a weights file is a model that Lentigo trained on labels; False for anything else, or no file."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    return isinstance(load_tensors(path)[1].get(_METADATA_KEY), dict)


def _load_exactly(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    wrong = [f"{name} missing" for name in own if name not in weights]
    wrong += [f"{name} unexpected" for name in weights if name not in own]
    wrong += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if wrong:
        raise CheckpointError(f"{path}: {len(wrong)} layers do not fit: {first_five(wrong)}", "Train it again.")
    network.load_state_dict(dict(weights))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write named tensors with JSON metadata atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    texts = {name: json.dumps(value) for name, value in metadata.items()}
    return write_atomic(path, lambda temporary: save_file(contiguous, temporary, metadata=texts))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Named tensors (CPU) and JSON metadata of a safetensors file.

    Raises:
        CheckpointError: where the file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}", "Train first, or pass another run.")
    try:
        with safe_open(path, "pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            metadata = {name: _parse(text) for name, text in (stream.metadata() or {}).items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file: {error}", "Restore it, or train again."
        ) from None
    return tensors, metadata


def _parse(text: str) -> Any:
    """Metadata that `save_tensors` wrote, decoded; that of other programs as it is."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
