"""Every command as it is meant to be used, on drawings of 48 px: results on stdout, all else on stderr."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lentigo import __version__
from lentigo.cli import console
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.models.checkpoint import load_tensors
from lentigo.training.events import EpochDone, Event, Listener, StepDone

Command = Callable[..., Any]
COMMANDS = (
    "train",
    "mine",
    "distill",
    "study",
    "evaluate",
    "report",
    "runs",
    "config",
    "doctor",
    "demo",
    "compare",
    "data check",
    "data split",
    "data synth",
    "data pack",
    "data show",
)


def files(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    """The records of a CSV file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# --- Data ---------------------------------------------------------------------------------------------------


def test_synth(lentigo: Command, tmp_path: Path) -> None:
    said = lentigo("data", "synth", "drawn", "--images", 30, "--size-px", 48, "--json")
    assert said.code == 0
    assert said.json["images"] == 30
    assert "synthetic" in said.json["notice"]
    assert "next: lentigo data split drawn/synthetic.csv" in said.err
    assert len(rows(tmp_path / said.json["table"])) == 30


def test_check_of_good_data(lentigo: Command, split: Path) -> None:
    said = lentigo("data", "check", split, "--no-near-duplicates", "--json")
    assert (said.code, said.err) == (0, "")
    assert said.json["image_count"] == 100
    assert not said.json["has_errors"]
    assert set(said.json["class_counts"]) == set(CLASS_CODES)
    told = lentigo("data", "check", split, "--no-near-duplicates")
    assert told.code == 0
    assert told.out.startswith("100 images")


def test_check_with_errors_exits_3(lentigo: Command, split: Path, tmp_path: Path) -> None:
    first = rows(split)[0]["image_id"]
    table = tmp_path / "edited.csv"
    table.write_text(split.read_text().replace(f"{first},", "twice,", 1).replace("/images/", "/gone/"))
    said = lentigo("data", "check", table, "--json")
    assert said.code == 3
    assert [found["kind"] for found in said.json["findings"] if found["severity"] == "error"] == ["missing-file"]
    told = lentigo("data", "check", table)
    assert told.code == 3
    assert told.err.splitlines() == [f"{SYNTHETIC_NOTICE} The numbers say nothing about real lesions."]
    assert "missing-file" in told.out
    assert "--images" in told.out


def test_split(lentigo: Command, drawn: Path, tmp_path: Path) -> None:
    said = lentigo("data", "split", drawn, "--out", "s.csv", "--fractions", "train=0.7,val=0.3", "--json")
    assert said.code == 0
    assert said.json["files"] == ["s.csv"]
    assert "next: lentigo train s.csv" in said.err
    written = rows(tmp_path / "s.csv")
    assert len(written) == said.json["n_images"] == 100
    for split in ("train", "val"):
        counts = said.json["counts"][split]
        assert sum(counts.values()) == sum(row["split"] == split for row in written)
        assert all(counts[code] for code in CLASS_CODES)
    sides: dict[str, set[str]] = {}
    for row in written:
        sides.setdefault(row["lesion_id"], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())
    again = lentigo("data", "split", drawn, "--out", "s.csv", "--fractions", "train=0.7,val=0.3", "--force")
    assert again.code == 0
    assert "groups after merging near-duplicates" in again.out
    assert rows(tmp_path / "s.csv") == written, "the same seed gives the same split"


def test_folds(lentigo: Command, drawn: Path, tmp_path: Path) -> None:
    said = lentigo("data", "split", drawn, "--out", "f.csv", "--folds", 2, "--no-near-duplicates", "--json")
    assert said.code == 0
    assert said.json["files"] == ["f-1.csv", "f-2.csv"]
    held_out = [
        {row["image_id"] for row in rows(tmp_path / name) if row["split"] == "val"} for name in said.json["files"]
    ]
    assert not held_out[0] & held_out[1]
    assert len(held_out[0] | held_out[1]) == 100


def test_pack_can_be_checked(lentigo: Command, split: Path, tmp_path: Path) -> None:
    said = lentigo("data", "pack", split, "--out", "p.parquet", "--size-px", 32, "--json")
    assert said.code == 0
    assert said.json["images"] == 100
    assert "next: lentigo train p.parquet" in said.err
    checked = lentigo("data", "check", tmp_path / "p.parquet", "--no-near-duplicates", "--json")
    assert checked.code == 0
    assert checked.json["image_count"] == 100


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_show(lentigo: Command, split: Path, tmp_path: Path, kind: str) -> None:
    said = lentigo("data", "show", split, "--out", "figures", "--format", kind, "--json")
    assert said.code == 0
    names = {f"class_balance.{kind}", f"images.{kind}", f"images_augmented.{kind}"}
    assert {Path(name).name for name in said.json["files"]} == names == files(tmp_path / "figures")


# --- Training -----------------------------------------------------------------------------------------------


def test_train_in_a_pipe(lentigo: Command, split: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Two epochs are two plain lines; stdout is one JSON document."""
    said = lentigo("train", split, *tiny, "--set", "training.epochs=2", "--name", "new", "--json")
    assert said.code == 0, said.err
    lines = said.err.splitlines()
    assert [line[:10] for line in lines if line.startswith("epoch ")] == ["epoch 1/2 ", "epoch 2/2 "]
    assert lines[0].startswith("training on ")
    assert lines[0].endswith("drawn images, not patients")
    assert lines[1] == "weights: random start"
    assert lines[-2].startswith("finished (done), best epoch ")
    assert lines[-1] == "run: runs/new    next: lentigo evaluate runs/new --split val"
    assert len(lines) == 6, lines
    assert "\x1b" not in said.err
    assert "\r" not in said.err
    assert said.json["run"] == "runs/new"
    assert (said.json["state"], said.json["epoch"]) == ("done", 2)
    run = tmp_path / "runs" / "new"
    assert [row["epoch"] for row in rows(run / "log.csv")] == ["1", "2"]
    assert {"config.toml", "environment.json", "status.json", "catalog.csv", "catalog.sha256"} <= files(run)
    assert {f"checkpoints/{n}" for n in ("best.safetensors", "last.safetensors", "last.state")} <= files(run)


def test_train_repeats_a_run_from_its_config(lentigo: Command, split: Path, trained: Path, tmp_path: Path) -> None:
    said = lentigo("train", "--config", trained / "config.toml", "--accelerator", "cpu", "--name", "b")
    assert said.code == 0, said.err
    assert (tmp_path / "runs/b/config.toml").read_text() == (trained / "config.toml").read_text()
    again = tmp_path / "runs" / "b"
    last, best = "checkpoints/last.safetensors", "checkpoints/best.safetensors"
    assert (again / last).read_bytes() == (trained / last).read_bytes()
    # The judged run's best weights carry its calibration as well.
    (now, unjudged), (then, judged) = load_tensors(again / best), load_tensors(trained / best)
    assert all(torch.equal(now[name], tensor) for name, tensor in then.items())
    assert judged["lentigo"].pop("calibration")["method"] == "temperature"
    assert unjudged["lentigo"].pop("calibration") == {}
    assert unjudged == judged


def test_dry_run_writes_nothing(lentigo: Command, split: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    said = lentigo("train", split, *tiny, "--dry-run", "--json")
    assert said.code == 0, said.err
    assert said.json["epochs"] == 1
    assert said.json["steps_per_epoch"] == said.json["train_images"] // 8
    assert said.json["parameters"] > 1_000_000
    assert not list(tmp_path.iterdir())


def test_time_limit_keeps_the_best(lentigo: Command, split: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    said = lentigo("train", split, *tiny, "--set", "training.epochs=500", "--time-limit", "1s", "--name", "short")
    assert said.code == 0, said.err
    assert "finished (time limit)" in said.err
    assert (tmp_path / "runs/short/checkpoints/best.safetensors").is_file()


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """`signal_at(epoch, step)`: a SIGTERM arrives after that step, as from a batch system."""

    def arm(epoch: int, step: int) -> None:
        quiet = console.training_listener

        @contextmanager
        def listener() -> Iterator[Listener]:
            with quiet() as listen:

                def hear(event: Event) -> None:
                    listen(event)
                    if isinstance(event, StepDone) and (event.epoch, event.step) == (epoch, step):
                        signal.raise_signal(signal.SIGTERM)

                yield hear

        monkeypatch.setattr(console, "training_listener", listener)

    return arm


def test_interrupted_training_resumes(
    lentigo: Command,
    split: Path,
    tiny: tuple[str, ...],
    signal_at: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Exit 130 says how to go on; what goes on ends where an uninterrupted training ends."""
    options = [split, *tiny, "--set", "training.epochs=2"]
    signal_at(1, 3)
    stopped = lentigo("train", *options, "--name", "stopped", "--json")
    monkeypatch.undo()
    assert stopped.code == 130, stopped.err
    assert stopped.json["state"] == "interrupted"
    assert stopped.err.endswith("\nstopped; saved. Continue: lentigo train --resume runs/stopped\n")
    assert lentigo("runs", "--json").json["runs"][0]["state"] == "interrupted"
    resumed = lentigo("train", "--resume", "runs/stopped", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["state"] == "done"
    assert "resuming after epoch 1, step" in resumed.err
    assert len([line for line in resumed.err.splitlines() if line.startswith("epoch ")]) == 1
    lentigo("train", *options, "--name", "whole")
    weights = [(tmp_path / "runs" / n / "checkpoints/last.safetensors").read_bytes() for n in ("stopped", "whole")]
    assert weights[0] == weights[1]
    done = lentigo("train", "--resume", "runs/stopped", "--json")
    assert (done.code, done.json["state"]) == (0, "done"), "to resume a finished run changes nothing"


def test_second_interrupt_stops_at_once(
    lentigo: Command, split: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """KeyboardInterrupt from anywhere is exit 130 and a recorded state, without a traceback."""

    @contextmanager
    def listener() -> Iterator[Listener]:
        def hear(event: Event) -> None:
            if isinstance(event, EpochDone):
                raise KeyboardInterrupt

        yield hear

    monkeypatch.setattr(console, "training_listener", listener)
    said = lentigo("train", split, *tiny, "--name", "stopped")
    assert (said.code, said.err) == (130, "interrupted\n")
    assert lentigo("runs", "--json").json["runs"][0]["state"] == "interrupted"


# --- Judging ------------------------------------------------------------------------------------------------


def test_evaluate_val(lentigo: Command, copied: Path) -> None:
    said = lentigo("evaluate", copied, "--resamples", 100, "--json")
    assert said.code == 0, said.err
    assert said.json["split"] == "val"
    stored = json.loads((copied / "metrics.json").read_text())["val"]
    assert len(stored.pop("weights_sha256")) == 64
    assert said.json == stored
    assert {"accuracy", "balanced_accuracy", "macro_f1"} <= set(said.json["metrics"])
    assert not (copied / "test_looks.json").exists()
    assert said.err == f"report: {copied}/report.html\n"
    assert {"predictions/val.csv", "predictions/val.report.txt", "report.html"} <= files(copied)


def test_evaluate_test_counts_looks(lentigo: Command, copied: Path) -> None:
    for look in (1, 2):
        said = lentigo("evaluate", copied, "--split", "test", "--resamples", 100)
        assert said.code == 0, said.err
        assert "95% interval" in said.out
        assert "Accuracy per class" in said.out
        assert len(json.loads((copied / "test_looks.json").read_text())) == look
    assert set(json.loads((copied / "metrics.json").read_text())) == {"val", "test"}


def test_report_needs_no_weights(lentigo: Command, copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints")
    (copied / "report.html").unlink()
    said = lentigo("report", copied)
    assert (said.code, said.out, said.err) == (0, "", f"report: {copied}/report.html\n")
    page = (copied / "report.html").read_text()
    assert "synthetic" in page.lower()
    assert "<svg" in page


def test_report_summary(lentigo: Command, copied: Path, tmp_path: Path) -> None:
    said = lentigo("report", copied, "--summary", "summary.json", "--track", "drawn")
    assert said.code == 0, said.err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["track"] == "drawn"
    assert summary["synthetic"] is True
    assert str(tmp_path) not in (tmp_path / "summary.json").read_text(), "no paths of one machine"


# --- Looking around -----------------------------------------------------------------------------------------


def test_runs(lentigo: Command, trained: Path, tmp_path: Path) -> None:
    said = lentigo("runs", "--runs-dir", trained.parent, "--json")
    assert said.code == 0
    assert [(Path(run["run"]).name, run["state"]) for run in said.json["runs"]] == [("shared", "done")]
    assert "shared" in lentigo("runs", "--runs-dir", trained.parent).out
    none = lentigo("runs")
    assert (none.code, none.out) == (0, "")
    assert "no runs in runs" in none.err
    assert lentigo("runs", "--json").json == {"runs": []}


@pytest.mark.parametrize("status", ["{half", "[]", "\udcff", '"done"'])
def test_runs_survives_a_broken_status(lentigo: Command, copied: Path, status: str) -> None:
    (copied / "status.json").write_bytes(status.encode(errors="surrogateescape"))
    said = lentigo("runs", "--runs-dir", copied.parent, "--json")
    assert said.code == 0, said.err
    assert said.json["runs"][0]["state"] == "failed"


def test_config(lentigo: Command) -> None:
    listed = lentigo("config", "--json")
    assert listed.code == 0
    names = [recipe["name"] for recipe in listed.json["recipes"]]
    assert {"demo", "paper-v2", "paper-v3", "quick"} <= set(names)
    for name in names:
        assert lentigo("config", name, "--json").json["about"]["name"] == name
    assert "paper-v3" in lentigo("config").out


def test_config_prints_what_can_be_read_back(lentigo: Command, tmp_path: Path) -> None:
    said = lentigo("config", "quick", "--set", "training.epochs=3", "--set", "training.precision=32")
    assert said.code == 0, said.err
    (tmp_path / "mine.toml").write_text(said.out)
    again = lentigo("config", "mine.toml", "--json")
    assert (again.json["training"]["epochs"], again.json["training"]["precision"]) == (3, "32")


def test_config_keys(lentigo: Command) -> None:
    said = lentigo("config", "--keys", "--json")
    assert said.code == 0
    assert said.json["training.epochs"]["default"] == "8"
    assert all(facts["meaning"] for facts in said.json.values())
    assert "optimizer.learning_rate" in lentigo("config", "--keys").out


def test_doctor(lentigo: Command) -> None:
    said = lentigo("doctor", "--json")
    assert (said.code, said.err) == (0, "")
    found = {check["check"]: check for check in said.json["checks"]}
    assert found["extra [train]"]["ok"]
    assert __version__ in found["lentigo"]["found"]
    assert "extra [train]" in lentigo("doctor").out


# --- The program itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "data", *COMMANDS])
def test_help(lentigo: Command, command: str) -> None:
    said = lentigo(*command.split(), "--help")
    assert (said.code, said.err) == (0, "")
    assert "Usage: lentigo" in said.out
    if command in COMMANDS:
        assert f"lentigo {command}" in said.out.split("╭─")[0].replace("Usage: ", "", 1), "an example to paste"


def test_version(lentigo: Command) -> None:
    assert lentigo("--version").out == f"lentigo {__version__}\n"


def test_no_arguments_print_the_help(lentigo: Command) -> None:
    said = lentigo()
    assert said.code == 2
    assert "Usage: lentigo" in said.out + said.err


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_help_is_quick_and_imports_little() -> None:
    imported = _python("-X", "importtime", "-m", "lentigo", "--help")
    assert imported.returncode == 0
    modules = {line.rpartition("|")[2].strip() for line in imported.stderr.splitlines()}
    packages = {name.partition(".")[0] for name in modules}
    heavy = {"torch", "torchvision", "lightning_fabric", "numpy", "PIL", "pydantic", "matplotlib", "sklearn"}
    assert "lentigo.cli.app" in modules
    assert not packages & (heavy | {"pandas", "pyarrow", "scipy", "timm"})
    used_s = []
    for _ in range(3):
        before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        assert _python("-m", "lentigo", "--help").returncode == 0
        used_s.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s)
    assert min(used_s) < 0.5


def test_shell_completion() -> None:
    script = _python("-m", "lentigo", "--show-completion", "bash")
    assert script.returncode == 0, script.stderr
    assert "complete -o default -F _lentigo_completion lentigo" in script.stdout
    words = _python("-m", "lentigo", _LENTIGO_COMPLETE="complete_bash", COMP_WORDS="lentigo data ", COMP_CWORD="2")
    assert set(words.stdout.split()) == {"check", "audit", "split", "synth", "pack", "show"}


@pytest.mark.parametrize("arguments", [["config", "--keys"], ["config", "--keys", "--json"], ["config", "quick"]])
def test_closed_pipe_is_no_bug(arguments: list[str]) -> None:
    """`lentigo config --keys | head -1` ends without a word and without the exit code of a bug."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "lentigo", *arguments]
    said = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writing)
    assert (said.returncode, said.stderr) == (0, "")


# --- Hard mining --------------------------------------------------------------------------------------------


def test_mine_and_its_report(lentigo: Command, copied: Path) -> None:
    said = lentigo(
        "mine", copied, "--recipe", "paper-v2-hard", "--name", "mined", "--json",
        "--set", "mining.confidence_threshold=1.0", "--set", "training.epochs=1", "--set", "training.batch_size=8",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "images scored" in said.err
    mined = Path(said.json["run"])
    assert mined.parent == copied.parent
    table = rows(mined / "mining" / "round-1.csv")
    assert {row["why"] for row in table} <= {"wrong answer", "low confidence", "not hard"}
    assert lentigo("evaluate", mined, "--resamples", 100).code == 0
    assert rows(mined / "mining" / "suspects.csv") == []
    page = (mined / "report.html").read_text(encoding="utf-8")
    assert "<h2>Hard mining</h2>" in page
    assert "Most confused pairs" in page
    refused = lentigo("train", "--config", mined / "config.toml", "--json")
    assert refused.code == 2
    assert "lentigo mine copied --recipe THIS/config.toml" in refused.json["remedy"]
