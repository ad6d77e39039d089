"""The golden inputs: raw files that tell a runtime with other preprocessing, or another network, from the right."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lentigo.core.errors import CheckpointError, ExportError
from lentigo.data.images import load_image
from lentigo.data.preprocess import Preprocess
from lentigo.deploy.golden import Golden, check_golden, draw_golden, golden_square, write_golden

PREPROCESS = Preprocess(resize_steps_px=(48, 32))
WEIGHT = np.random.default_rng(0).normal(scale=1e-5, size=(32 * 32 * 3, 7))


def network(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Any function of the pixels will do."""
    return (squares.reshape(len(squares), -1) @ WEIGHT).astype(np.float32)


def predict(path: Path) -> NDArray[np.float32]:
    return network(golden_square(PREPROCESS, path.read_bytes(), path.name)[None])[0]


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    return draw_golden()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_golden(tmp_path / "golden", PREPROCESS, {"fp32": network, "int8": lambda x: network(x) + 0.01})
    return tmp_path / "golden"


def test_twenty_small_files_that_are_always_the_same(drawn: dict[str, bytes]) -> None:
    assert len(drawn) == 20
    assert sum(map(len, drawn.values())) < 600_000
    assert draw_golden() == drawn
    assert set(draw_golden(seed=1).values()).isdisjoint(drawn.values())


def test_they_hold_what_decoders_get_wrong(drawn: dict[str, bytes]) -> None:
    images = [Image.open(io.BytesIO(data)) for data in drawn.values()]
    assert {image.mode for image in images} >= {"RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16"}
    assert {image.getexif().get(0x0112) for image in images} >= {None, 2, 6, 8}
    assert any("icc_profile" in image.info for image in images)
    assert any(image.info.get("progressive") for image in images)
    assert any(image.mode == "P" and "transparency" in image.info for image in images)
    ratios = [image.width / image.height for image in images]
    assert min(ratios) < 0.7
    assert max(ratios) > 4


@pytest.mark.parametrize("what", ["turned", "mirrored", "profile", "transparent.png", "palette-transparent", "16-bit"])
def test_a_careless_decoder_gets_other_pixels(drawn: dict[str, bytes], what: str) -> None:
    meant = {name: data for name, data in drawn.items() if what in name}
    assert meant
    for name, data in meant.items():
        careless = Image.open(io.BytesIO(data)).convert("RGB")
        square = np.asarray(PREPROCESS.remaining_steps(PREPROCESS.first_step(careless))).astype(int)
        assert np.abs(square - golden_square(PREPROCESS, data, name)).mean() > 1.0, name


def test_the_right_runtime_passes(folder: Path) -> None:
    assert check_golden(folder, predict) == 0.0
    assert check_golden(folder, lambda path: predict(path) + 0.01, variant="int8") <= 1e-6
    golden = Golden.load(folder)
    for one in golden.images:
        square = golden_square(PREPROCESS, (folder / one.file).read_bytes(), one.file)
        assert one.sha256 == hashlib.sha256((folder / one.file).read_bytes()).hexdigest()
        assert one.pixels_sha256 == hashlib.sha256(square.tobytes()).hexdigest()


def test_other_logits_fail(folder: Path) -> None:
    check_golden(folder, lambda path: predict(path) + 0.9e-4)
    with pytest.raises(ExportError, match=r"logits of 20 golden inputs within 0.0001; found .* and 15 more"):
        check_golden(folder, lambda path: predict(path) + 1.2e-4)
    with pytest.raises(ExportError):
        check_golden(folder, lambda path: predict(path) * float("nan"))
    assert check_golden(folder, lambda path: predict(path) + 0.01, tolerance=0.02) == pytest.approx(0.01, rel=1e-3)


def test_another_resize_fails(folder: Path) -> None:
    other = Preprocess(resize_steps_px=(32,))
    with pytest.raises(ExportError):
        check_golden(folder, lambda path: network(np.asarray(other.first_step(load_image(path)))[None])[0])


def test_damaged_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no golden inputs"):
        check_golden(tmp_path, predict)
    content = json.loads((folder / "golden.json").read_text())
    first = folder / content["images"][0]["file"]
    first.write_bytes(first.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=f"changed: {first.name}"):
        check_golden(folder, predict)
    for image in content["images"]:
        del image["logits"]["int8"]
    (folder / "golden.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="no logits of int8"):
        check_golden(folder, predict, variant="int8")
    content["images"][0]["file"] = "../secret.png"
    (folder / "golden.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="damaged"):
        Golden.load(folder)
    (folder / "golden.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        check_golden(folder, predict)
