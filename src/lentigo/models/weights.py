"""Starting weights: torchvision's or a shipped model's by name, a safetensors or .pth file, or none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lentigo import __version__
from lentigo.core.errors import CheckpointError, ConfigError, first_five
from lentigo.core.shipped import DEFAULT_MODEL, START_FILE, shipped_start
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.models.convert import convert_names
from lentigo.models.network import TIMM_PREFIX, Architecture

START_KEY = "lentigo_start"
"""Metadata of a start made by distillation: teachers, images, seed."""


@dataclass(frozen=True)
class WeightsReport:
    """What a file brought: names of loaded, replaced (the head), missing and unused tensors.

    `trained_on` is the digest of the rows that a Lentigo model or start was trained on, empty for other weights;
    `distilled_from` names the teachers of a start.
    """

    origin: str
    loaded: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    trained_on: str = ""
    distilled_from: str = ""

    def __str__(self) -> str:
        if not self.loaded:
            return f"weights: {self.origin}"
        parts = [f"weights: {self.origin}, {len(self.loaded)} tensors"]
        parts += [f"distilled from {self.distilled_from}"] if self.distilled_from else []
        parts += [f"new head: {', '.join(self.replaced)}"] if self.replaced else []
        parts += ["head kept: it was trained on the same classes"] if self.trained_on and not self.replaced else []
        parts += [f"missing (left random): {first_five(self.missing)}"] if self.missing else []
        parts += [f"not used: {first_five(self.unused)}"] if self.unused else []
        return "; ".join(parts)


def load_weights(network: nn.Module, architecture_name: str, architecture: Architecture, weights: str) -> WeightsReport:
    """Fill `network` in place from `imagenet`, `none`, a shipped model's name or a file, of any float precision.

    Layers of the classifier whose shape differs, or that learnt other classes, are left fresh (a new head); any other
    difference in shape, and a file that holds less than half of the backbone, are errors. The network is not touched
    on an error.

    Raises:
        ConfigError: a shipped model of another architecture.
        CheckpointError: no such file, no weights in it, no connection, or layers that do not fit (named).
    """
    if weights == "none":
        return WeightsReport(origin_name(weights))
    tensors = (
        _imagenet(architecture_name, architecture) if weights == "imagenet" else read_tensors(weights_path(weights))
    )
    description = _read_description(weights)
    _check_shipped(weights, description, architecture_name)
    other_classes = tuple(description.get("classes", CLASS_CODES)) != CLASS_CODES
    own = network.state_dict()
    tensors = convert_names(tensors, architecture_name, own)
    wanted = {name for name in own if not name.endswith("num_batches_tracked")}
    replaced = {
        name
        for name in wanted & tensors.keys()
        if name.startswith(architecture.head_prefix) and (other_classes or tensors[name].shape != own[name].shape)
    }
    mismatched = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in sorted(wanted & tensors.keys())
        if tensors[name].shape != own[name].shape and name not in replaced
    ]
    loaded = (own.keys() & tensors.keys()) - replaced
    backbone = {name for name in wanted if not name.startswith(architecture.head_prefix)}
    if mismatched or len(backbone & loaded) * 2 < len(backbone):
        detail = (
            f"{len(mismatched)} layers differ in shape: {first_five(mismatched)}"
            if mismatched
            else f"it holds {len(backbone & loaded)} of {len(backbone)} backbone tensors, "
            f"and others such as {first_five(sorted(tensors.keys() - own.keys())[:3])}"
        )
        raise CheckpointError(
            f"{weights} does not fit {architecture_name}: {detail}",
            "Pass weights of this architecture, or set model.architecture to that of the file.",
        )
    missing_head = {name for name in wanted - tensors.keys() if name.startswith(architecture.head + ".")}
    network.load_state_dict({name: tensors[name] for name in loaded}, strict=False)
    return WeightsReport(
        origin_name(weights),
        tuple(sorted(loaded)),
        tuple(sorted(replaced | missing_head)),
        tuple(sorted(wanted - tensors.keys() - missing_head)),
        tuple(sorted(tensors.keys() - own.keys())),
        *_history(description),
    )


def _read_description(weights: str) -> Mapping[str, Any]:
    """What a model or a start that Lentigo wrote says of itself; empty for other weights."""
    path = weights_path(weights)
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as stream:
        metadata = stream.metadata() or {}
    try:
        found = json.loads(metadata.get(START_KEY) or metadata.get("lentigo", "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _check_shipped(weights: str, description: Mapping[str, Any], architecture_name: str) -> None:
    found = description.get("architecture")
    if shipped_start(weights) is not None and found != architecture_name:
        raise ConfigError(
            f"the weights {weights} are those of {found}; found model.architecture = {architecture_name}",
            f"Pass --set model.architecture={found}, or begin with other weights.",
        )


def _history(description: Mapping[str, Any]) -> tuple[str, str]:
    """`trained_on` and `distilled_from` as a model or a start describes itself."""
    try:
        if "teachers" in description:
            teachers = ", ".join(str(teacher["file"]) for teacher in description["teachers"])
            return str(description["catalog_sha256"]), teachers
        return str(description["provenance"]["catalog_sha256"]), ""
    except (KeyError, TypeError):
        return "", ""


def weights_path(weights: str) -> Path:
    """The file behind `weights`: that of a shipped model's name, or the path that it is."""
    return shipped_start(weights) or Path(weights)


def origin_name(weights: str) -> str:
    """How records name a start: never with the folders of one machine; a shipped one with version and digest."""
    shipped = shipped_start(weights)
    if shipped is not None:
        return f"{weights} {__version__}, sha256 {hashlib.sha256(shipped.read_bytes()).hexdigest()[:16]}"
    return {"none": "random start", "imagenet": "imagenet"}.get(weights, Path(weights).name)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` or torchvision `.pth` file; pickled code is never run.

    Raises:
        CheckpointError: where the file is missing, damaged, or holds anything but named, finite tensors.
    """
    if path == Path(DEFAULT_MODEL) and not path.is_file():
        raise CheckpointError(
            f"this installation has no weights of the shipped model: no {START_FILE} of {DEFAULT_MODEL}",
            "Install a release, or pass `imagenet`, `none`, or a .safetensors or .pth file.",
        )
    if not path.is_file():
        raise CheckpointError(
            f"no weights file {path}",
            f"Pass an existing .safetensors or .pth file, `{DEFAULT_MODEL}` (the shipped model), `imagenet` or `none`.",
        )
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise CheckpointError(f"{path}: expected .safetensors or .pth, found {path.suffix!r}", "Convert the file.")
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or no weights file: {_one_line(error)}", _FETCH_AGAIN) from None
    except Exception as error:  # torch raises pickle.UnpicklingError and plain Exceptions for foreign content
        raise CheckpointError(f"{path} holds more than tensors: {_one_line(error)}", _FETCH_AGAIN) from None
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        found = "none" if isinstance(content, Mapping) and not content else type(content).__name__
        raise CheckpointError(f"{path}: expected named tensors, found {found}", _FETCH_AGAIN)
    not_finite = [name for name, tensor in content.items() if not tensor.isfinite().all()]
    if not_finite:
        raise CheckpointError(f"{path} has weights that are not finite: {first_five(not_finite)}", _FETCH_AGAIN)
    return dict(content)


_FETCH_AGAIN = "Fetch the file again, or pass a plain state dictionary as .safetensors or .pth."


def _imagenet(name: str, architecture: Architecture) -> dict[str, Tensor]:
    offline = CheckpointError(
        f"the ImageNet weights of {name} are neither cached nor reachable",
        "Connect once, or pass --weights FILE (.safetensors or .pth), or --weights none for a random start.",
    )
    if name.startswith(TIMM_PREFIX):
        import timm

        try:
            pretrained = timm.create_model(name.removeprefix(TIMM_PREFIX), pretrained=True)
        except Exception as error:  # the hub client's errors share no base class
            raise offline from error
        return dict(pretrained.state_dict())
    try:
        # The file name carries the head of its SHA-256, which check_hash compares.
        state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            architecture.weights_url, progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (URLError, OSError) as error:
        raise offline from error
    except RuntimeError as error:
        raise CheckpointError(
            f"the ImageNet weights of {name} arrived damaged: {_one_line(error)}", "Try again."
        ) from None
    return state


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
