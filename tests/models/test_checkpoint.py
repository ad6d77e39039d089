"""Checkpoints: bit for bit there and back; everything else is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lentigo.core.errors import CheckpointError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.preprocess import Preprocess
from lentigo.models.checkpoint import (
    ModelSpec,
    add_calibration,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
    weights_digest,
)
from lentigo.models.network import build_network

SPEC = ModelSpec(
    architecture="mobilenet_v2",
    dropout=0.35,
    preprocess=Preprocess(color_mode="gray", resize_steps_px=(300, 224), mean=(0.1, 0.2, 0.3)),
    provenance={"recipe": "paper-v2", "start": "Gewichte é.pth"},
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network("mobilenet_v2", 7, 0.35).to(memory_format=torch.channels_last)


@pytest.fixture
def saved(network: nn.Module, tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "best.safetensors", network.state_dict(), SPEC)


def test_round_trip(network: nn.Module, saved: Path) -> None:
    loaded, spec = load_checkpoint(saved)
    assert spec == SPEC
    assert not loaded.training
    assert loaded.get_submodule("classifier.0").p == 0.35
    expected = network.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name
    again = save_checkpoint(saved.with_name("again.safetensors"), loaded.state_dict(), spec)
    assert again.read_bytes() == saved.read_bytes()


def test_special_values_survive(tmp_path: Path) -> None:
    values = torch.tensor([0.0, -0.0, 1e-45, float("inf"), float("nan"), 3.4e38])
    path = save_tensors(
        tmp_path / "x.state", {"a": values, "b": torch.tensor(7), "c": values[:0]}, {"m": {"x": [1.1, None]}}
    )
    tensors, metadata = load_tensors(path)
    assert tensors["a"].numpy().tobytes() == values.numpy().tobytes()
    assert tensors["b"].item() == 7
    assert tensors["b"].dtype == torch.int64
    assert tensors["c"].shape == (0,)
    assert metadata == {"m": {"x": [1.1, None]}}


def test_the_digest_is_that_of_the_weights_and_not_of_the_file(network: nn.Module, saved: Path) -> None:
    digest, content = weights_digest(load_tensors(saved)[0]), saved.read_bytes()
    assert digest == weights_digest(network.state_dict()), "whatever the layout in memory"
    add_calibration(saved, {"temperature": 1.5})
    assert saved.read_bytes() != content
    assert weights_digest(load_tensors(saved)[0]) == digest


def test_the_digest_covers_names_types_shapes_and_values() -> None:
    values = torch.tensor([1.0, -2.0, 0.0, 4.0], dtype=torch.bfloat16)
    tensors = [
        {"a": values},
        {"b": values},
        {"a": values.reshape(2, 2)},
        {"a": values.view(torch.int16)},
        {"a": -values},
        {"a": values, "b": torch.tensor(True)},
        {"a": values, "b": torch.tensor(False)},
        {"a": values, "b": values[:0]},
    ]
    assert len({weights_digest(one) for one in tensors}) == len(tensors)
    assert weights_digest({"a": values, "b": values[:1]}) == weights_digest({"b": values[:1], "a": values})


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64, b"PK\x03\x04 zip"])
def test_foreign_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.999])
def test_truncated(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(saved)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"note": ""}, {"lentigo": "3"}, {"lentigo": "[1]"}])
def test_weights_without_a_description(network: nn.Module, tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="no Lentigo model description") as error:
        load_checkpoint(path)
    assert "--weights" in error.value.remedy


def rewrite(path: Path, **changes: Any) -> Path:
    """The same weights under an altered description."""
    tensors, metadata = load_tensors(path)
    return save_tensors(path, tensors, {"lentigo": {**metadata["lentigo"], **changes}})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"format_version": 2}, "format version 2; this version reads 1"),
        ({"format_version": 2, "new_field": 1}, "format version 2"),
        ({"architecture": "mobilenet_v9"}, "unusable model description"),
        ({"surprise": 1}, "unusable model description"),
        ({"preprocess": {"size": 3}}, "unusable model description"),
        ({"classes": ["mel", "nv"]}, "knows the classes mel, nv; expected akiec"),
        ({"classes": list(CLASS_CODES[::-1])}, "knows the classes vasc"),
        (
            {"architecture": "mobilenet_v3_large"},
            r"layers do not fit: features\.0\.0\.weight is \(32|layers do not fit",
        ),
    ],
)
def test_descriptions_that_cannot_be_used(saved: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(rewrite(saved, **changes))
    assert error.value.remedy


def test_layers_that_do_not_fit_are_named(saved: Path) -> None:
    tensors, metadata = load_tensors(saved)
    del tensors["features.0.0.weight"]
    tensors["extra"] = torch.zeros(1)
    tensors["classifier.1.bias"] = torch.zeros(8)
    save_tensors(saved, tensors, metadata)
    with pytest.raises(CheckpointError, match="3 layers do not fit") as error:
        load_checkpoint(saved)
    for part in (
        "features.0.0.weight missing",
        "extra unexpected",
        "classifier.1.bias is (8,), expected (7,)",
    ):
        assert part in error.value.message


def test_the_description_is_readable_without_torch(saved: Path) -> None:
    with saved.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    assert json.loads(header["__metadata__"]["lentigo"])["classes"] == list(CLASS_CODES)
