"""Renamed weights: every tensor finds its place, and the network they fill recognises photographs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lentigo.core.errors import CheckpointError
from lentigo.models.convert import LITE0, convert_names
from lentigo.models.network import build_network, find_architecture
from lentigo.models.weights import load_weights, read_tensors

pytest.importorskip("timm")

LITE0_FILE = "efficientnet-lite0-57934424.pth"
PHOTOGRAPHS = 100


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return build_network(LITE0, 1000).eval()


@pytest.fixture(scope="module")
def foreign(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors under the names of efficientnet-lite-pytorch, written down independently."""
    names: dict[str, str] = {}
    number = 0
    for stage, depth in enumerate((1, 2, 2, 3, 3, 4, 1)):
        for block in range(depth):
            layers = [
                "_expand_conv _bn0 _depthwise_conv _bn1 _project_conv _bn2",
                "conv_pw bn1 conv_dw bn2 conv_pwl bn3",
            ]
            if number == 0:
                layers = ["_depthwise_conv _bn1 _project_conv _bn2", "conv_dw bn1 conv_pw bn2"]
            for theirs, ours in zip(layers[0].split(), layers[1].split(), strict=True):
                names[f"blocks.{stage}.{block}.{ours}"] = f"_blocks.{number}.{theirs}"
            number += 1
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    names |= outside
    return {
        f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": tensor
        for key, tensor in network.state_dict().items()
    }


def test_every_tensor_finds_its_place(network: nn.Module, foreign: dict[str, Tensor], tmp_path: Path) -> None:
    own = network.state_dict()
    renamed = convert_names(foreign, LITE0, own)
    assert renamed.keys() == own.keys()
    assert all(renamed[name] is foreign_tensor for name, foreign_tensor in zip(own, foreign.values(), strict=True))
    torch.save(foreign, tmp_path / "lite0.pth")
    torch.manual_seed(1)
    other = build_network(LITE0, 7)
    report = load_weights(other, LITE0, find_architecture(LITE0), str(tmp_path / "lite0.pth"))
    assert report.replaced == ("classifier.bias", "classifier.weight")
    assert (report.missing, report.unused) == ((), ())
    assert torch.equal(other.state_dict()["conv_stem.weight"], own["conv_stem.weight"])


def test_a_tensor_too_many_or_too_few_is_named(network: nn.Module, foreign: dict[str, Tensor]) -> None:
    own = network.state_dict()
    with pytest.raises(CheckpointError, match=r"_blocks\.16\._bn1\.weight has no place"):
        convert_names(foreign | {"_blocks.16._bn1.weight": torch.zeros(1)}, LITE0, own)
    fewer = {name: tensor for name, tensor in foreign.items() if name != "_blocks.3._bn1.bias"}
    with pytest.raises(CheckpointError, match=r"blocks\.2\.0\.bn2\.bias is missing"):
        convert_names(fewer, LITE0, own)


def test_other_files_and_architectures_stay_as_they_are(foreign: dict[str, Tensor]) -> None:
    assert convert_names(foreign, "mobilenet_v2", ()) == foreign
    plain = {"conv_stem.weight": torch.zeros(1)}
    assert convert_names(plain, LITE0, plain) == plain


def test_wrong_shapes_are_named(foreign: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(foreign | {"_bn1.bias": torch.zeros(3)}, tmp_path / "lite0.pth")
    with pytest.raises(CheckpointError, match=r"bn2\.bias is \(3,\), expected \(1280,\)"):
        load_weights(build_network(LITE0, 7), LITE0, find_architecture(LITE0), str(tmp_path / "lite0.pth"))


@pytest.mark.slow
def test_the_published_file_recognises_photographs(network: nn.Module, pretrained: Path) -> None:
    """Photographs named after their ImageNet class; with wrong layers, padding or normalisation fewer are right."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    folder = Path(os.environ.get("LENTIGO_PHOTOS", pretrained.parent / "other_images"))
    if not folder.is_dir() or not (pretrained / LITE0_FILE).is_file():
        pytest.skip(f"no {LITE0_FILE} or no photographs at {folder}; set LENTIGO_WEIGHTS and LENTIGO_PHOTOS")
    classes = {_plain(name): number for number, name in enumerate(_IMAGENET_CATEGORIES)}
    files = [path for path in sorted(folder.glob("*.jpg")) if _plain(path.stem) in classes][::10][:PHOTOGRAPHS]
    architecture = find_architecture(LITE0)
    load_weights(network, LITE0, architecture, str(pretrained / LITE0_FILE))
    images = torch.stack([torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in files])
    mean, std = (torch.tensor(values)[:, None, None] for values in (architecture.mean, architecture.std))
    inputs = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    torch.testing.assert_close(inputs, (images.permute(0, 3, 1, 2).float() - 127) / 128)
    with torch.inference_mode():
        answer = torch.cat([network(part).argmax(dim=1) for part in inputs.split(25)])
    right = (answer == torch.tensor([classes[_plain(path.stem)] for path in files])).float().mean().item()
    assert right > 0.75, f"top-1 {right:.3f} of {len(files)}"
    assert len(read_tensors(pretrained / LITE0_FILE)) == len(network.state_dict())


def _plain(name: str) -> str:
    return name.lower().replace(" ", "_").replace("'", "")
