"""`lentigo distill` from the options to a start that `lentigo train --weights` begins with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lentigo.models.network import build_network


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MobileNetV2 with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("teacher") / "v2.safetensors"
    save_file(build_network("mobilenet_v2", 5).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def options(split: Path, teacher: Path) -> tuple[object, ...]:
    """A distillation of seconds."""
    return (
        "distill", "--student", "mobilenet_v3_large", "--teacher", f"mobilenet_v2={teacher}", "--data", split,
        "--photos", teacher.parent.parent / "photographs", "--size", 32, "--batch-size", 16, "--epochs", 1,
        "--accelerator", "cpu",
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def photographs(split: Path, teacher: Path) -> Path:
    """A folder of four photographs, drawn here without a lesion."""
    from PIL import Image

    folder = teacher.parent.parent / "photographs"
    folder.mkdir()
    for number, color in enumerate(("red", "green", "blue", "gray")):
        Image.new("RGB", (40, 30), color).save(folder / f"{color}-{number}.png")
    return folder


def test_a_start_is_made_and_training_begins_with_it(
    lentigo: Callable[..., Any], options: tuple[object, ...], split: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    said = lentigo(*options, "--out", tmp_path / "start-v3", "--licence-note", "teacher MIT", "--json")
    assert said.code == 0, said.err
    start = tmp_path / "start-v3" / "start.safetensors"
    assert said.json["start"] == str(start)
    assert said.json["ended"] == "done"
    assert said.json["held_out_loss"] > 0
    assert "of val, test or no split left out" in said.err
    assert "4 photographs" in said.err
    last_line = said.err.strip().splitlines()[-1]
    assert last_line.startswith(f"start: {start}    next: lentigo train DATA --weights {start}")
    with safe_open(start, "pt") as stream:
        facts = json.loads(stream.metadata()["lentigo_start"])
    assert facts["licence_note"] == "teacher MIT"

    weights = [f"--weights={start}" if option.startswith("--weights") else option for option in tiny]
    trained = lentigo(
        "train", split, *weights, "--set", "model.architecture=mobilenet_v3_large", "--set",
        "optimizer.learning_rate=1e-9", "--set", "optimizer.weight_decay=0", "--name", "from-start",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert "start.safetensors" in trained.err
    assert "distilled from v2.safetensors" in trained.err
    assert "caution" not in trained.err
    after = load_file(Path("runs/from-start/checkpoints/last.safetensors"))
    name = "features.4.block.0.0.weight"
    torch.testing.assert_close(after[name], load_file(start)[name].float(), atol=1e-5, rtol=0)


def test_it_stops_at_a_limit_and_continues(
    lentigo: Callable[..., Any], options: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "start"
    said = lentigo(*options, "--out", out, "--time-limit", "0.01s")
    assert said.code == 0, said.err
    assert f"saved. Continue: lentigo distill --resume --out {out}" in said.err
    assert (out / "start.safetensors").is_file()
    said = lentigo("distill", "--resume", "--out", out, "--accelerator", "cpu")
    assert said.code == 0, said.err
    assert "resuming after epoch 0, step 1" in said.err
    assert "done after 1 epochs" in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "x.csv"], 2, "expected a teacher"),
        (["--teacher", "mobilenet_v2=TEACHER"], 2, "expected images to learn from"),
        (["--teacher", "mobilenet_v2", "--photos", "."], 2, "--teacher takes ARCHITECTURE=FILE; found 'mobilenet_v2'"),
        (["--teacher", "mobilenet_v2=gone.pth", "--photos", "."], 3, "no weights file gone.pth"),
        (["--teacher", "mobilenet_v9=TEACHER", "--photos", "."], 2, "unknown architecture 'mobilenet_v9'"),
        (["--student", "mobile", "--teacher", "mobilenet_v2=TEACHER", "--photos", "."], 2, "unknown architecture"),
        (["--teacher", "mobilenet_v2=TEACHER", "--photos", "gone"], 3, "no folder of photographs"),
        (["--teacher", "mobilenet_v2=TEACHER", "--data", "gone.csv"], 3, "no data set at"),
        (["--teacher", "mobilenet_v3_large=TEACHER", "--data", "SPLIT", "--batch-size", "8"], 3, "does not fit"),
        (["--size", "64", "--sizes", "64,96"], 2, "found both"),
        (["--sizes", "64;96"], 2, "--sizes takes whole numbers"),
        (["--resume", "--epochs", "3"], 2, "continues a distillation exactly as it was"),
        (["--resume"], 3, "not the folder of a distillation"),
        (["--teacher", "mobilenet_v2=TEACHER", "--data", "SPLIT", "--learning-rate", "7"], 2, "learning_rate = 7"),
    ],
)
def test_bad_input_gives_one_clear_error(
    lentigo: Callable[..., Any], teacher: Path, split: Path, arguments: list[str], code: int, message: str
) -> None:
    filled = [argument.replace("TEACHER", str(teacher)).replace("SPLIT", str(split)) for argument in arguments]
    said = lentigo("distill", *filled, "--out", "start")
    assert said.code == code, said.err
    assert message in said.err
    assert said.err.count("error:") == 1
    assert "Traceback" not in said.err
    assert not Path("start").exists()


def test_an_existing_folder_is_not_overwritten(lentigo: Callable[..., Any], options: tuple[object, ...]) -> None:
    Path("start").mkdir()
    said = lentigo(*options, "--out", "start")
    assert said.code == 2
    assert "start exists already" in said.err
