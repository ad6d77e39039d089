"""Two processes on one machine do what one process does with the same global batches."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lentigo.core.config import Config
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.models.checkpoint import load_tensors
from lentigo.models.network import ARCHITECTURES
from lentigo.training.events import Event, StepDone

pytestmark = pytest.mark.slow
ONE_PROCESS_PER_CPU = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
SECONDS = 120
TOLERANCE = 1e-5
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def make_configs(tiny: ModuleType) -> dict[str, Config]:
    """Trainings that must not depend on how many processes run them; the weights of the last stand still."""
    return {
        "plain": tiny.make_plain_config(),
        "full": tiny.make_plain_config(
            augment={"rotation_degrees": 90.0, "brightness": 0.2},
            optimizer={"head_only_epochs": 1, "gradient_clip_norm": 0.5, "layer_decay": 0.8},
            regularization={"ema_decay": 0.9},
            training={"sampler": "inverse", "checkpoint_min": 1e-9},
        ),
        "statistics": tiny.make_plain_config(
            model={"batch_norm": "train"},
            regularization={"ema_decay": 0.9},
            optimizer={"learning_rate": 1e-7},
            training={"checkpoint_min": 1e-9},
        ),
    }


def run_program(command: list[str], folder: Path) -> str:
    """Its standard output; fails with all that it said."""
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=ONE_PROCESS_PER_CPU, capture_output=True, text=True,
        timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def prepare(folder: Path, catalog: Catalog, configs: dict[str, Config]) -> Path:
    """The tables and recipes that tiny.py reads."""
    catalog.to_csv(folder / "tiny.csv")
    for name, config in configs.items():
        (folder / f"{name}.toml").write_text(config.to_toml(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def two(
    tiny_module: ModuleType,
    tiny_catalog: Catalog,
    tiny_script: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """All trainings in two processes that torchrun started."""
    configs = make_configs(tiny_module)
    folder = prepare(tmp_path_factory.mktemp("two"), tiny_catalog, configs)
    run_program([*TORCHRUN, str(tiny_script), str(folder), "2", *(f"start:{name}" for name in configs)], folder)
    return folder


@pytest.fixture(scope="module")
def one(tiny_module: ModuleType, tiny_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same trainings in this process."""
    configs = make_configs(tiny_module)
    folder = prepare(tmp_path_factory.mktemp("one"), tiny_catalog, configs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny", tiny_module.TINY)
        tiny_module.main(folder, 1, [f"start:{name}" for name in configs])
    return folder


def assert_close_weights(first: Path, second: Path) -> None:
    """Every tensor of two weight files agrees to TOLERANCE."""
    tensors, expected = load_tensors(first)[0], load_tensors(second)[0]
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], atol=TOLERANCE, rtol=TOLERANCE, msg=f"{name} differs")


def log_values(run: RunDir) -> np.ndarray:
    """The log without the seconds."""
    with run.log.open(encoding="utf-8", newline="") as stream:
        return np.array([[float(v) for k, v in row.items() if not k.endswith("_s")] for row in csv.DictReader(stream)])


@pytest.mark.parametrize("name", ["plain", "full"])
def test_two_processes_equal_one(one: Path, two: Path, name: str) -> None:
    run, expected = RunDir(two / name), RunDir(one / name)
    assert run.read_status()["state"] == "done"
    assert_close_weights(run.last, expected.last)
    assert_close_weights(run.best, expected.best)
    np.testing.assert_allclose(log_values(run), log_values(expected), atol=1e-4)


def test_the_networks_learned_at_all(one: Path, two: Path, tiny_module: ModuleType) -> None:
    """Agreement of networks that never moved would prove nothing."""
    first, last = (load_tensors(RunDir(two / name).last)[0] for name in ("plain", "full"))
    assert (first["features.2.0.weight"] - last["features.2.0.weight"]).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", ["plain", "full", "statistics"])
def test_every_process_sees_every_validation_image_once_in_order(two: Path, tiny_catalog: Catalog, name: str) -> None:
    tables = [Predictions.from_csv(two / f"{name}-tables" / f"val-{rank}.csv") for rank in (0, 1)]
    rows = [row for row in tiny_catalog if row.split == "val"]
    assert len(rows) == 9
    for table in tables:
        assert table.image_id == tuple(row.image_id for row in rows)
        assert table.label.tolist() == [row.label for row in rows]
    np.testing.assert_allclose(tables[0].logits, tables[1].logits, atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "full"])
def test_validation_logits_equal_those_of_one_process(one: Path, two: Path, name: str) -> None:
    table, expected = (Predictions.from_csv(folder / f"{name}-tables" / "val-0.csv") for folder in (two, one))
    np.testing.assert_allclose(table.logits, expected.logits, atol=1e-4)


def test_statistics_of_both_processes_count_and_nothing_is_mixed_up(one: Path, two: Path) -> None:
    """The mean over both halves of each batch is that of the batch, in the network and in its average."""
    tensors, expected = (load_tensors(RunDir(folder / "statistics").state)[0] for folder in (two, one))
    for part in ("network/", "average/module."):
        name = f"{part}features.0.1.running_mean"
        assert torch.allclose(tensors[name], expected[name], atol=TOLERANCE), name
        assert expected[name].abs().max() > 0.05
    mean = [tensors[f"{part}features.0.1.running_mean"] for part in ("network/", "average/module.")]
    assert not torch.equal(*mean)


def test_fabric_starts_the_second_process_itself_and_both_take_up_a_stopped_run(
    two: Path, one: Path, tiny: ModuleType, tiny_catalog: Catalog, tiny_script: Path, tmp_path: Path
) -> None:
    """`--devices 2` without torchrun: a new run, and one that a single process left in its second epoch."""
    configs = make_configs(tiny)
    prepare(tmp_path, tiny_catalog, {"full": configs["full"]})

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and (event.epoch, event.step) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)

    stopped, _ = tiny.start(configs["plain"], tiny_catalog, tmp_path, "stopped", stop)
    assert stopped.read_status()["state"] == "interrupted"
    said = run_program([str(tiny_script), str(tmp_path), "2", "start:full", "resume:stopped"], tmp_path)
    # Two epochs of the one, the rest of the second of the other: only the first process speaks.
    assert said.count("EpochDone") == 3
    assert said.count("resuming after epoch 1, step 3") == 1
    run = RunDir(tmp_path / "full")
    assert run.read_status()["state"] == stopped.read_status()["state"] == "done"
    assert_close_weights(run.last, RunDir(two / "full").last)
    assert_close_weights(stopped.last, RunDir(one / "plain").last)
