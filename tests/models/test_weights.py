"""Starting weights: what fits is loaded, what does not is named, and nothing from a file is executed."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lentigo import __version__
from lentigo.core import shipped
from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.models.network import build_network, find_architecture
from lentigo.models.weights import START_KEY, WeightsReport, load_weights, read_tensors

V2, V3 = "mobilenet_v2", "mobilenet_v3_large"


def fresh(name: str = V2, classes: int = 7, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(name, classes)


def load(network: nn.Module, weights: str | Path, name: str = V2) -> WeightsReport:
    return load_weights(network, name, find_architecture(name), str(weights))


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """As ImageNet weights come: a head of 1000 classes."""
    return {name: tensor.clone() for name, tensor in fresh(V2, 1000, seed=9).state_dict().items()}


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "state_dict"])
def test_backbone_is_loaded_and_the_head_is_new(
    published: dict[str, Tensor], tmp_path: Path, ending: str, wrapped: bool
) -> None:
    path = tmp_path / f"weights{ending}"
    if ending == ".safetensors":
        save_file(published, path)
    else:
        torch.save({"state_dict": published, "epoch": 3} if wrapped else published, path)
    network = fresh()
    before = snapshot(network)
    report = load(network, path)
    after = network.state_dict()
    assert report.replaced == ("classifier.1.bias", "classifier.1.weight")
    assert (report.missing, report.unused) == ((), ())
    assert len(report.loaded) == len(after) - 2
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name] if name in report.replaced else published[name]), name
    assert f"weights: {path.name}, {len(after) - 2} tensors; new head: classifier.1.bias" in str(report)


def test_missing_and_unused_tensors_are_listed(published: dict[str, Tensor], tmp_path: Path) -> None:
    tensors = dict(published)
    for name in (
        "features.18.0.weight",
        "features.3.conv.0.0.weight",
        "classifier.1.weight",
        "classifier.1.bias",
    ):
        del tensors[name]
    tensors["decoder.weight"] = torch.zeros(2)
    save_file(tensors, tmp_path / "part.safetensors")
    network = fresh()
    before = snapshot(network)
    report = load(network, tmp_path / "part.safetensors")
    assert report.missing == ("features.18.0.weight", "features.3.conv.0.0.weight")
    assert report.replaced == ("classifier.1.bias", "classifier.1.weight")
    assert report.unused == ("decoder.weight",)
    assert "missing (left random): features.18.0.weight" in str(report)
    assert "not used: decoder.weight" in str(report)
    assert torch.equal(network.state_dict()["features.18.0.weight"], before["features.18.0.weight"])


def test_a_head_of_the_same_shape_is_kept(tmp_path: Path) -> None:
    other = fresh(seed=4)
    save_file(other.state_dict(), tmp_path / "own.safetensors")
    network = fresh()
    report = load(network, tmp_path / "own.safetensors")
    assert (report.replaced, report.missing, report.unused) == ((), (), ())
    assert same(network.state_dict(), other.state_dict())


def test_wrong_shapes_are_named_and_nothing_is_touched(published: dict[str, Tensor], tmp_path: Path) -> None:
    names = ["features.0.0.weight", "features.18.1.bias"]
    tensors = published | {name: torch.zeros(3, 5) for name in names}
    save_file(tensors, tmp_path / "wrong.safetensors")
    network = fresh()
    before = snapshot(network)
    with pytest.raises(CheckpointError, match="2 layers differ in shape") as error:
        load(network, tmp_path / "wrong.safetensors")
    assert f"{names[0]} is (3, 5), expected (32, 3, 3, 3)" in error.value.message
    assert names[1] in error.value.message
    assert same(before, network.state_dict())


def test_weights_of_another_architecture(published: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(published, tmp_path / "v2.safetensors")
    network = fresh(V3)
    before = snapshot(network)
    with pytest.raises(CheckpointError, match=f"does not fit {V3}") as error:
        load(network, tmp_path / "v2.safetensors", V3)
    assert "model.architecture" in error.value.remedy
    assert same(before, network.state_dict())
    save_file({f"encoder.{name}": tensor for name, tensor in published.items()}, tmp_path / "renamed.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 0 of \d+ backbone tensors.*encoder\."):
        load(fresh(), tmp_path / "renamed.safetensors")


class Bomb:
    """An object whose unpickling makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_pickled_objects_are_never_executed(tmp_path: Path, legacy: bool) -> None:
    marker, path = tmp_path / "executed", tmp_path / "bomb.pth"
    torch.save({"features.0.0.weight": Bomb(marker)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_tensors(path)
    path.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(CheckpointError):
        read_tensors(path)
    assert not marker.exists()


def test_damaged_and_foreign_files(published: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(published, tmp_path / "a.safetensors")
    torch.save(published, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        whole = (tmp_path / name).read_bytes()
        for content in (whole[: len(whole) // 2], b"", b"hello", b"\xff" * 100, b"<html>not found</html>"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(CheckpointError) as error:
                read_tensors(tmp_path / name)
            assert name in error.value.message
            assert error.value.remedy
    with pytest.raises(CheckpointError, match="no weights file"):
        read_tensors(tmp_path / "none.pth")
    (tmp_path / "a.onnx").touch()
    with pytest.raises(CheckpointError, match=r"expected \.safetensors or \.pth, found '\.onnx'"):
        read_tensors(tmp_path / "a.onnx")
    save_file({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match="weights that are not finite: a"):
        read_tensors(tmp_path / "nan.safetensors")
    for content in ([torch.zeros(1)], {}, {"a": 3}, torch.zeros(2)):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(CheckpointError, match="expected named tensors"):
            read_tensors(tmp_path / "odd.pth")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_cast(tmp_path: Path, kind: torch.dtype) -> None:
    other = fresh(V3, seed=5).state_dict()
    half = {
        name: tensor.to(kind) if tensor.is_floating_point() else tensor
        for name, tensor in other.items()
        if not name.startswith("classifier.")
    }
    save_file(half, tmp_path / "half.safetensors")
    network = fresh(V3)
    before = snapshot(network)
    report = load(network, tmp_path / "half.safetensors", V3)
    assert report.replaced == ("classifier.3.bias", "classifier.3.weight")
    assert report.missing == ("classifier.0.bias", "classifier.0.weight")
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, half[name].to(tensor.dtype) if name in half else before[name]), name


def test_a_start_names_its_teachers_and_rows(tmp_path: Path) -> None:
    start = {"teachers": [{"file": "one.pth"}, {"file": "two.safetensors"}], "catalog_sha256": "c0ffee"}
    save_file(fresh().state_dict(), tmp_path / "start.safetensors", metadata={START_KEY: json.dumps(start)})
    report = load(fresh(), tmp_path / "start.safetensors")
    assert report.trained_on == "c0ffee"
    assert "distilled from one.pth, two.safetensors" in str(report)
    save_file(fresh().state_dict(), tmp_path / "odd.safetensors", metadata={START_KEY: "[]"})
    assert load(fresh(), tmp_path / "odd.safetensors").trained_on == ""


def test_none_changes_nothing() -> None:
    network = fresh()
    before = snapshot(network)
    assert str(load(network, "none")) == "weights: random start"
    assert same(before, network.state_dict())


def test_imagenet_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    network = fresh()
    before = snapshot(network)
    with pytest.raises(CheckpointError, match="neither cached nor reachable") as error:
        load(network, "imagenet")
    assert "--weights FILE" in error.value.remedy
    assert "--weights none" in error.value.remedy
    assert same(before, network.state_dict())


def test_imagenet_online(published: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fetch(url: str, **options: Any) -> dict[str, Tensor]:
        asked.update(options, url=url)
        return published

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    network = fresh()
    report = load(network, "imagenet")
    assert report.origin == "imagenet"
    assert asked["url"].startswith("https://download.pytorch.org/models/mobilenet_v2-")
    assert asked["check_hash"] is True
    assert asked["weights_only"] is True
    assert torch.equal(network.state_dict()["features.18.0.weight"], published["features.18.0.weight"])

    def damaged(url: str, **options: Any) -> None:
        raise RuntimeError('invalid hash value (expected "a", got "b")')

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", damaged)
    with pytest.raises(CheckpointError, match="arrived damaged: invalid hash"):
        load(fresh(), "imagenet")


@pytest.mark.parametrize(
    "name, file, missing_head",
    [
        (V2, "mobilenet_v2_imagenet.safetensors", 2),
        (V3, "mobilenet_v3_large_matting.safetensors", 2),
    ],
)
def test_published_files_load(pretrained: Path, name: str, file: str, missing_head: int) -> None:
    path = pretrained / file
    if not path.is_file():
        pytest.skip(f"no {path}")
    network = fresh(name)
    report = load(network, path, name)
    assert len(report.replaced) == missing_head
    assert [key for key in report.missing if not key.startswith("classifier.")] == []
    assert report.unused == ()
    means = torch.cat([b.flatten() for key, b in network.state_dict().items() if key.endswith("running_mean")])
    assert means.abs().max() > 1
    assert torch.isfinite(network.eval()(torch.zeros(1, 3, 64, 64))).all()


def test_shipped_weights_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision in the package; the head of the same seven classes comes along."""
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    with pytest.raises(CheckpointError, match="this installation has no weights of the shipped model") as error:
        load(fresh(), "lentigo")
    assert "`imagenet`" in error.value.remedy
    trained = fresh(seed=5).state_dict()
    (tmp_path / "lentigo").mkdir()
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in trained.items()}
    path = tmp_path / "lentigo" / "start.safetensors"
    description = {"architecture": V2, "classes": CLASS_CODES, "provenance": {"catalog_sha256": "abc"}}
    save_file(halves, path, metadata={"lentigo": json.dumps(description)})
    network = fresh()
    report = load(network, "lentigo")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert report.origin == f"lentigo {__version__}, sha256 {digest[:16]}"
    assert (report.replaced, report.missing, report.trained_on) == ((), (), "abc")
    assert "head kept: it was trained on the same classes" in str(report)
    assert all(
        torch.equal(tensor, halves[name].to(tensor.dtype))
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )
    other = fresh(V3)
    before = snapshot(other)
    with pytest.raises(ConfigError, match=r"those of mobilenet_v2; found .* mobilenet_v3_large"):
        load(other, "lentigo", V3)
    assert same(before, other.state_dict())


def test_a_head_of_other_classes_is_new(tmp_path: Path) -> None:
    description = {"architecture": V2, "classes": CLASS_CODES[::-1], "provenance": {"catalog_sha256": "abc"}}
    trained = fresh(seed=5).state_dict()
    save_file(trained, tmp_path / "other.safetensors", metadata={"lentigo": json.dumps(description)})
    network = fresh()
    before = snapshot(network)
    report = load(network, tmp_path / "other.safetensors")
    assert report.replaced == ("classifier.1.bias", "classifier.1.weight")
    assert "new head" in str(report)
    assert "head kept" not in str(report)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name] if name in report.replaced else trained[name]), name
