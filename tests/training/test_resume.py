"""A training stopped, killed or broken at any moment ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision

from lentigo.core.config import Config
from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.models.checkpoint import load_tensors
from lentigo.training import run as run_module
from lentigo.training.events import EpochDone, Event, StepDone

EVERY_STEP_MIN = 1e-9
FORK = multiprocessing.get_context("fork")


def log_rows(run: RunDir) -> list[dict[str, str]]:
    """The rows of log.csv without the seconds."""
    with run.log.open(encoding="utf-8", newline="") as stream:
        return [{k: v for k, v in row.items() if k not in ("train_s", "val_s")} for row in csv.DictReader(stream)]


def progress_of(metadata: dict[str, Any]) -> dict[str, Any]:
    """The progress without the seconds."""
    progress = {key: value for key, value in metadata["progress"].items() if key != "elapsed_s"}
    seconds = ("train_s", "val_s")
    progress["rows"] = [{k: v for k, v in row.items() if k not in seconds} for row in progress["rows"]]
    return progress


def assert_same_run(run: RunDir, reference: RunDir) -> None:
    """Weights, optimiser, average, progress and log agree in every bit."""
    assert run.best.read_bytes() == reference.best.read_bytes()
    assert run.last.read_bytes() == reference.last.read_bytes()
    tensors, metadata = load_tensors(run.state)
    expected_tensors, expected_metadata = load_tensors(reference.state)
    assert tensors.keys() == expected_tensors.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], expected_tensors[name])] == []
    assert {name.split("/")[0] for name in tensors} >= {"network", "average", "optimizer"}
    assert progress_of(metadata) == progress_of(expected_metadata)
    assert log_rows(run) == log_rows(reference)
    assert run.read_status()["state"] == reference.read_status()["state"] == "done"


@pytest.fixture
def config(tiny: ModuleType) -> Config:
    """Average, mixing, head first, dropout, clipping and one cycle, all on; three epochs of six steps."""
    config: Config = tiny.make_config(training={"epochs": 3, "checkpoint_min": EVERY_STEP_MIN})
    assert config.regularization.ema_decay
    assert config.regularization.mixup_alpha
    assert config.regularization.cutmix_alpha
    assert config.optimizer.head_only_epochs == 1
    assert config.optimizer.schedule == "one_cycle"
    assert config.model.dropout
    return config


@pytest.fixture
def reference(tiny: ModuleType, config: Config, tiny_catalog: Catalog, tmp_path: Path) -> RunDir:
    """The run that nobody disturbed."""
    run: RunDir = tiny.start(config, tiny_catalog, tmp_path, "reference")[0]
    return run


def stop_after(epoch: int, step: int) -> Callable[[Event], None]:
    """A listener that sends SIGINT after a step, so that one more is done; step 0: at the epoch's end."""

    def listen(event: Event) -> None:
        at_step = isinstance(event, StepDone) and (event.epoch, event.step) == (epoch, step)
        at_end = isinstance(event, EpochDone) and step == 0 and event.row["epoch"] == epoch + 1
        if at_step or at_end:
            os.kill(os.getpid(), signal.SIGINT)

    return listen


@pytest.mark.parametrize("moment", [(0, 1), (0, 5), (1, 0), (1, 3), (2, 5)], ids=lambda moment: "{}-{}".format(*moment))
def test_stopped_on_request_and_resumed(
    tiny: ModuleType,
    config: Config,
    tiny_catalog: Catalog,
    reference: RunDir,
    tmp_path: Path,
    moment: tuple[int, int],
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    run, outcome = tiny.start(config, tiny_catalog, tmp_path, "stopped", stop_after(*moment))
    assert outcome.finished == ""
    status = run.read_status()
    assert status["state"] == "interrupted"
    assert "--resume" in status["message"]
    assert signal.getsignal(signal.SIGINT) is handler, "the signal handler was not put back"
    run, outcome = tiny.resume(run)
    assert outcome.finished == "done"
    assert_same_run(run, reference)


def test_real_network_stopped_within_an_epoch(tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path) -> None:
    config = tiny.make_config(
        model={"architecture": "mobilenet_v2"},
        training={"batch_size": 8, "channels_last": True},
        optimizer={"layer_decay": 0.9, "decay_norm": False},
    )
    reference, _ = tiny.start(config, tiny_catalog, tmp_path, "reference")
    run, _ = tiny.start(config, tiny_catalog, tmp_path, "stopped", stop_after(1, 1))
    assert run.read_status()["state"] == "interrupted"
    tiny.resume(run)
    assert_same_run(run, reference)


def test_second_interrupt_stops_at_once_and_resumes(
    tiny: ModuleType, config: Config, tiny_catalog: Catalog, reference: RunDir, tmp_path: Path
) -> None:
    def twice(event: Event) -> None:
        if isinstance(event, StepDone) and event.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tiny.start(config, tiny_catalog, tmp_path, "twice", twice)
    run = RunDir(tmp_path / "twice")
    assert run.read_status()["state"] == "interrupted"
    tiny.resume(run)
    assert_same_run(run, reference)


def in_child(work: Callable[[], object]) -> multiprocessing.Process:
    """A forked process at work; silent, whatever its end."""

    def quiet() -> None:
        with open(os.devnull, "w") as sink:
            os.dup2(sink.fileno(), 2)
            work()

    child = FORK.Process(target=quiet)
    child.start()
    return child  # type: ignore[return-value]


def wait_for(condition: Callable[[], bool], child: multiprocessing.Process, limit_s: float = 60) -> None:
    """Until the condition holds or the child has ended."""
    end_s = time.monotonic() + limit_s
    while child.is_alive() and not condition():
        assert time.monotonic() < end_s, "the child neither worked nor ended"
        time.sleep(0.001)


def test_killed_again_and_again(
    tiny: ModuleType, config: Config, tiny_catalog: Catalog, reference: RunDir, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "killed")
    draw = random.Random(5)

    def stamp() -> int:
        return run.state.stat().st_mtime_ns if run.state.exists() else 0

    child = in_child(lambda: tiny.start(config, tiny_catalog, tmp_path, "killed"))
    wait_for(run.catalog_digest.exists, child)
    kills = 0
    while True:
        before = stamp()
        wait_for(lambda before=before: stamp() != before, child)  # type: ignore[misc]
        time.sleep(draw.uniform(0, 0.02))
        if child.exitcode is not None:
            break
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        if child.exitcode == 0:
            break
        # "done" where the kill came after the last word and before the process had ended.
        assert run.read_status()["state"] in ("interrupted", "done")
        child = in_child(lambda: tiny.resume(run))
    child.join()
    assert child.exitcode == 0
    assert kills >= 3, "the training ended before it was killed often enough to mean anything"
    assert_same_run(run, reference)


def die_at_replace(number: int) -> None:
    """Patch this process so that its `number`-th rename of a finished file is preceded by SIGKILL."""
    replace, calls = os.replace, [0]

    def deadly(source: Any, target: Any) -> None:
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = deadly


def count_replaces(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that `work` put in place, in order."""
    names: list[str] = []
    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda source, target: (names.append(Path(target).name), replace(source, target)))
        work()
    return names


def test_killed_before_every_single_file_is_put_in_place(
    tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.make_config()
    names = count_replaces(lambda: tiny.start(config, tiny_catalog, tmp_path, "reference"), monkeypatch)
    reference = RunDir(tmp_path / "reference")
    first = names.index("status.json") + 1
    assert set(names[first:]) == {
        "best.safetensors",
        "last.safetensors",
        "last.state",
        "log.csv",
        "status.json",
    }
    assert len(names) - first >= 10, "two epochs of five files"
    for number in range(first, len(names) + 1):

        def work(number: int = number) -> None:
            die_at_replace(number)
            tiny.start(config, tiny_catalog, tmp_path, f"killed-{number}")

        child = in_child(work)
        child.join()
        assert child.exitcode == -signal.SIGKILL, number
        run = RunDir(tmp_path / f"killed-{number}")
        assert run.read_status()["state"] == "interrupted"
        tiny.resume(run)
        assert_same_run(run, reference)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_program_of_its_own_killed_and_resumed_here(
    tiny: ModuleType,
    config: Config,
    tiny_catalog: Catalog,
    reference: RunDir,
    tmp_path: Path,
    tiny_script: Path,
    number: signal.Signals,
) -> None:
    slow = config.model_copy(update={"training": config.training.model_copy(update={"epochs": 3})})
    tiny_catalog.to_csv(tmp_path / "tiny.csv")
    (tmp_path / "run.toml").write_text(slow.to_toml(), encoding="utf-8")
    run = RunDir(tmp_path / "run")
    program = subprocess.Popen(
        [sys.executable, str(tiny_script), str(tmp_path), "1", "start:run"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while program.poll() is None and not run.state.exists():
            time.sleep(0.002)
        program.send_signal(number)
        code = program.wait(timeout=30)
    finally:
        program.kill()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert run.read_status()["state"] == "interrupted"
    tiny.resume(run)
    assert_same_run(run, reference)


def test_killed_before_any_state_starts_over(
    tiny: ModuleType, config: Config, tiny_catalog: Catalog, reference: RunDir, tmp_path: Path
) -> None:
    run, _ = tiny.start(config, tiny_catalog, tmp_path, "early", stop_after(0, 2))
    shutil.rmtree(run.state.parent)
    tiny.resume(run)
    assert_same_run(run, reference)


def test_finished_run_resumed_changes_nothing(tiny: ModuleType, reference: RunDir) -> None:
    kept = (reference.best, reference.last, reference.state)
    log = reference.log.read_bytes()
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept}
    status = reference.read_status()
    events: list[Event] = []
    _, outcome = tiny.resume(reference, events.append)
    assert outcome.finished == "done"
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept} == before
    assert reference.log.read_bytes() == log
    assert reference.read_status() == status
    assert not [event for event in events if isinstance(event, StepDone)]


@pytest.mark.parametrize(
    "old, new",
    [
        ("learning_rate = 0.01", "learning_rate = 0.02"),
        ("seed = 0", "seed = 1"),
        ("ema_decay = 0.9", "ema_decay = 0.0"),
        ('architecture = "tiny"', 'architecture = "mobilenet_v2"'),
    ],
)
def test_edited_recipe_is_refused(
    tiny: ModuleType, config: Config, tiny_catalog: Catalog, tmp_path: Path, old: str, new: str
) -> None:
    run, _ = tiny.start(config, tiny_catalog, tmp_path, "run", stop_after(1, 3))
    text = run.config.read_text(encoding="utf-8")
    assert old in text
    run.config.write_text(text.replace(old, new), encoding="utf-8")
    state, status = run.state.read_bytes(), run.status.read_bytes()
    with pytest.raises(CheckpointError, match=r"recipe changed|does not fit this run"):
        tiny.resume(run)
    assert run.state.read_bytes() == state
    assert run.status.read_bytes() == status, "a refusal is not a failure of the run"


def test_where_and_how_long_may_be_edited(
    tiny: ModuleType, config: Config, tiny_catalog: Catalog, reference: RunDir, tmp_path: Path
) -> None:
    run, _ = tiny.start(config, tiny_catalog, tmp_path, "run", stop_after(1, 3))
    text = run.config.read_text(encoding="utf-8")
    edited = text.replace('cache = "memory"', 'cache = "none"').replace("time_limit_min = 0.0", "time_limit_min = 9.0")
    assert edited != text
    run.config.write_text(edited, encoding="utf-8")
    tiny.resume(run)
    assert_same_run(run, reference)


@pytest.mark.parametrize("change", ["split", "label", "order", "missing row"])
def test_edited_catalogue_is_refused(
    tiny: ModuleType, config: Config, tiny_catalog: Catalog, tmp_path: Path, change: str
) -> None:
    run, _ = tiny.start(config, tiny_catalog, tmp_path, "run", stop_after(1, 3))
    header, *lines = run.catalog.read_text(encoding="utf-8").splitlines(keepends=True)
    row = next(line for line in lines if ",train," in line)
    edits = {
        "split": lambda: lines.__setitem__(lines.index(row), row.replace(",train,", ",extra,")),
        "label": lambda: lines.__setitem__(
            lines.index(row),
            ",".join("bcc" if i == 2 and v != "bcc" else v for i, v in enumerate(row.split(","))),
        ),
        "order": lines.reverse,
        "missing row": lambda: lines.remove(row),
    }
    before = list(lines)
    edits[change]()
    assert lines != before
    run.catalog.write_text("".join([header, *lines]), encoding="utf-8")
    with pytest.raises(CheckpointError, match="no longer matches its digest"):
        tiny.resume(run)


def test_damaged_state_is_refused(tiny: ModuleType, config: Config, tiny_catalog: Catalog, tmp_path: Path) -> None:
    run, _ = tiny.start(config, tiny_catalog, tmp_path, "run", stop_after(1, 3))
    run.state.write_bytes(run.state.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        tiny.resume(run)


def test_other_catalogue_with_its_own_digest_is_refused(
    tiny: ModuleType, config: Config, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    run, _ = tiny.start(config, tiny_catalog, tmp_path, "run", stop_after(1, 3))
    fewer = Catalog(tiny_catalog.rows[1:])
    fewer.to_csv(run.catalog)
    run.catalog_digest.write_text(fewer.sha256, encoding="utf-8")
    with pytest.raises(CheckpointError, match="rows or splits changed"):
        tiny.resume(run)


def test_a_run_at_work_is_refused_to_a_second_process(
    tiny: ModuleType, config: Config, tiny_catalog: Catalog, reference: RunDir, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "held")
    release, held = FORK.Event(), FORK.Event()

    def pause(event: Event) -> None:
        if isinstance(event, StepDone) and event.epoch == 1 and not held.is_set():
            held.set()
            release.wait(60)

    child = in_child(lambda: tiny.start(config, tiny_catalog, tmp_path, "held", pause))
    try:
        wait_for(held.is_set, child)
        assert run.read_status()["state"] == "running"
        console = run.console.read_bytes()
        with pytest.raises(ConfigError, match="another process"):
            tiny.resume(run)
        assert run.read_status()["state"] == "running"
        assert run.console.read_bytes() == console
    finally:
        release.set()
        child.join(60)
    assert child.exitcode == 0
    assert_same_run(run, reference)


def test_half_precision_scales_the_loss_and_resumes(
    tiny: ModuleType, tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fabric has 16-bit precision for GPUs only; its plug-in runs on a CPU too when given the scaler."""
    config = tiny.make_config(training={"precision": "16"})
    steps: list[float] = []

    def open_fabric(config: Config, where: object) -> Fabric:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=5)
        return Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    clip = torch.nn.utils.clip_grad_norm_

    def watch(parameters: Any, max_norm: float, **options: Any) -> torch.Tensor:
        norm = clip(parameters, max_norm, **options)
        steps.append(float(norm))
        return norm

    monkeypatch.setattr(run_module, "open_fabric", open_fabric)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watch)
    reference, _ = tiny.start(config, tiny_catalog, tmp_path, "reference")
    finite = [norm for norm in steps if norm < float("inf")]
    assert len(finite) > 6
    assert max(finite) < 100, "the gradients still carry the factor of the loss scaler (4096 and more)"
    scale = json.loads(json.dumps(load_tensors(reference.state)[1]))["progress"]["loss_scaler"]["scale"]
    assert scale != 2.0**12, "the scaler never moved, so this test would not see it lost"
    run, _ = tiny.start(config, tiny_catalog, tmp_path, "stopped", stop_after(1, 2))
    tiny.resume(run)
    assert_same_run(run, reference)
