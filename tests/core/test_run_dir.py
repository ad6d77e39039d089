"""A run folder: names, status and lock."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.run_dir import STATES, RunDir, list_runs

FORK = multiprocessing.get_context("fork")


def test_create_names_and_never_reuses(tmp_path: Path) -> None:
    first, second = (RunDir.create(tmp_path / "runs", "timm:some_net") for _ in range(2))
    assert first.path != second.path
    assert "-timm-some_net-" in first.path.name
    named = RunDir.create(tmp_path / "runs", "x", "mine")
    assert named.path == tmp_path / "runs" / "mine"
    with pytest.raises(ConfigError, match="exists already") as error:
        RunDir.create(tmp_path / "runs", "x", "mine")
    assert "--resume" in error.value.remedy


def test_artefacts_have_different_names() -> None:
    run = RunDir(Path("r"))
    names = [
        run.config, run.environment, run.status, run.catalog, run.catalog_digest, run.log, run.console,
        run.best, run.last, run.state, run.metrics, run.looks, run.report, run.predictions("val"),
        run.predictions("test"), run.figure("a"), run.text_report("val"),
        run.examination, run.calibration, run.robustness, run.model_card, run.explanations, run.explanation_check,
        run.outlier_statistics, run.outlier_gate, run.outlier_judgement, run.ensemble,
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    assert all(path.is_relative_to("r") for path in names)


def test_open(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        RunDir.open(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"no config\.toml"):
        RunDir.open(tmp_path)
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    assert RunDir.open(tmp_path).path == tmp_path


def test_status_of_a_dead_process_is_interrupted(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.read_status()["state"] == "interrupted", "a folder without a status and without a process"
    with run.lock():
        run.write_status("running", epoch=3)
        assert run.read_status()["state"] == "running"
    assert run.read_status()["state"] == "interrupted"
    assert run.read_status()["epoch"] == 3
    for state in STATES[1:]:
        run.write_status(state)
        assert run.read_status()["state"] == state
    run.status.write_text("{", encoding="utf-8")
    assert run.read_status()["state"] == "failed"
    with pytest.raises(AssertionError):
        run.write_status("odd")


def test_lock_holds_against_another_process_and_ends_with_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    held, release = FORK.Event(), FORK.Event()

    def hold() -> None:
        with run.lock():
            held.set()
            release.wait(30)

    child = FORK.Process(target=hold)
    assert not run.is_locked()
    child.start()
    try:
        assert held.wait(30)
        assert run.is_locked()
        with pytest.raises(ConfigError, match="another process"), run.lock():
            pass
        child.kill()
        child.join(30)
        assert not run.is_locked()
        with run.lock():
            assert run.is_locked()
    finally:
        child.kill()
        child.join(30)


def test_lock_is_looked_at_without_the_right_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, modes = RunDir(tmp_path), []
    real_open = Path.open

    def refuse_writing(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        modes.append(mode)
        if set(mode) & set("awx+"):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, mode, *rest, **more)

    with run.lock():
        monkeypatch.setattr(Path, "open", refuse_writing)
        assert run.is_locked()
    assert not run.is_locked()
    assert modes == ["rb", "rb"]


def test_two_who_look_are_no_worker(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with run.lock():
        pass
    with (tmp_path / ".lock").open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)  # what `is_locked` of another process holds for an instant
        assert not run.is_locked()


def test_looks_are_counted(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.read_looks() == []
    run.add_look()
    run.add_look()
    assert len(run.read_looks()) == len(json.loads(run.looks.read_text(encoding="utf-8"))) == 2


def test_list_runs(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").touch()
    (tmp_path / "c").mkdir()
    assert [run.path.name for run in list_runs(tmp_path)] == ["a", "b"]
