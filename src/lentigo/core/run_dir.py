"""A run is a folder: the file name of every artefact, its status and its lock."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.files import write_json_atomic

LOCK_WAITS_S = (0.05, 0.1, 0.2)
STATES = ("running", "done", "interrupted", "failed")


@dataclass(frozen=True, slots=True)
class RunDir:
    """Names of the artefacts below `path`; see the class's properties for the list."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.path / "config.toml"

    @property
    def environment(self) -> Path:
        """Versions, machine, commit, command line."""
        return self.path / "environment.json"

    @property
    def status(self) -> Path:
        """State, epoch, message."""
        return self.path / "status.json"

    @property
    def catalog(self) -> Path:
        """The exact rows and splits."""
        return self.path / "catalog.csv"

    @property
    def catalog_digest(self) -> Path:
        """Digest of the rows."""
        return self.path / "catalog.sha256"

    @property
    def log(self) -> Path:
        """One row an epoch."""
        return self.path / "log.csv"

    @property
    def console(self) -> Path:
        """What the terminal said."""
        return self.path / "log.txt"

    @property
    def best(self) -> Path:
        """The chosen weights."""
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def last(self) -> Path:
        """The last epoch's weights."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def state(self) -> Path:
        """All that a resumed training needs."""
        return self.path / "checkpoints" / "last.state"

    @property
    def metrics(self) -> Path:
        """Metrics of every judged split."""
        return self.path / "metrics.json"

    @property
    def examination(self) -> Path:
        """Clinical questions, calibration, sets, abstaining and subgroups of every judged split."""
        return self.path / "examination.json"

    @property
    def calibration(self) -> Path:
        """Temperature, thresholds, sets and abstain rules, fitted on val."""
        return self.path / "calibration.json"

    @property
    def robustness(self) -> Path:
        """Scores on corrupted copies of val images."""
        return self.path / "robustness.json"

    @property
    def explanations(self) -> Path:
        """Folder of the overlays that show where the network looks."""
        return self.path / "explain"

    @property
    def explanation_check(self) -> Path:
        """The overlays of a split, and whether their maps say anything."""
        return self.explanations / "check.json"

    @property
    def outlier_statistics(self) -> Path:
        """Means and covariance of the training images' features."""
        return self.path / "outliers" / "statistics.npz"

    @property
    def outlier_gate(self) -> Path:
        """The score and the threshold above which an image is rejected."""
        return self.path / "outliers" / "gate.json"

    @property
    def outlier_judgement(self) -> Path:
        """How well the gate tells other kinds of images."""
        return self.path / "outliers" / "judgement.json"

    @property
    def ensemble(self) -> Path:
        """Members and method, in a folder whose predictions are those of several runs together; no run has it."""
        return self.path / "ensemble.json"

    @property
    def model_card(self) -> Path:
        """What the model is, for whom, how good and what is unknown."""
        return self.path / "MODEL_CARD.md"

    @property
    def looks(self) -> Path:
        """When the test split was looked at."""
        return self.path / "test_looks.json"

    @property
    def report(self) -> Path:
        """The self-contained report."""
        return self.path / "report.html"

    @property
    def export(self) -> Path:
        """Folder of the exported model."""
        return self.path / "export"

    @property
    def mining(self) -> Path:
        """Folder of a round of hard mining: its table, its suspects, and the out-of-fold models it rests on."""
        return self.path / "mining"

    @property
    def mining_rounds(self) -> list[Path]:
        """Tables of the rounds, oldest first; the last one weighted this run's training images."""
        return sorted(self.mining.glob("round-*.csv"), key=round_number)

    def predictions(self, split: str) -> Path:
        """Logits of one split."""
        return self.path / "predictions" / f"{split}.csv"

    def figure(self, name: str) -> Path:
        """A figure as SVG."""
        return self.path / "figures" / f"{name}.svg"

    def text_report(self, split: str) -> Path:
        """The printed classification report of one split."""
        return self.path / "predictions" / f"{split}.report.txt"

    @classmethod
    def create(cls, root: Path, architecture: str, name: str | None = None) -> RunDir:
        """A new folder `YYYYMMDD-HHMM-architecture-xxxx` below `root`, or `root/name`; never an existing one."""
        if name is not None:
            cls.check_name(root, name)
        stamp = datetime.now().strftime("%Y%m%d-%H%M")
        folder = root / (name or f"{stamp}-{architecture.replace(':', '-')}-{secrets.token_hex(2)}")
        folder.mkdir(parents=True)
        return cls(folder)

    @classmethod
    def check_name(cls, root: Path, name: str) -> None:
        """Raise ConfigError where `name` is no plain folder name, or taken."""
        folder = root / name
        if not name or Path(name).name != name:
            raise ConfigError(
                f"--name takes a plain folder name; found {name!r}",
                "Set the folder above it with --runs-dir.",
            )
        if folder.exists():
            raise ConfigError(
                f"the run {folder} exists already",
                f"Choose another --name, or continue it with `lentigo train --resume {folder}`.",
            )

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run; CheckpointError where the folder is none."""
        run = cls(path)
        if not path.is_dir() or not run.config.is_file():
            found = "no such folder" if not path.exists() else "no config.toml in it"
            raise CheckpointError(
                f"{path} is not a run folder ({found})", "`lentigo runs` lists the runs; pass one of them."
            )
        return run

    def read_status(self) -> dict[str, Any]:
        """The status; a run whose process is gone without a word reads as interrupted."""
        try:
            status: dict[str, Any] = dict(json.loads(self.status.read_text(encoding="utf-8")))
        except FileNotFoundError:
            status = {"state": "running"}
        except (ValueError, TypeError):
            return {"state": "failed", "message": "status.json is unreadable"}
        if status.setdefault("state", "failed") == "running" and not self.is_locked():
            status |= {"state": "interrupted", "message": "the process ended without a word"}
        return status

    def write_status(self, state: str, **facts: Any) -> None:
        """Replace the status."""
        assert state in STATES, state
        write_json_atomic(self.status, {"state": state, "pid": os.getpid(), **facts})

    def read_looks(self) -> list[str]:
        """Times at which the test split was judged; CheckpointError where the file is damaged."""
        if not self.looks.is_file():
            return []
        try:
            looks: list[str] = list(json.loads(self.looks.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                f"{self.looks} is damaged: {error}",
                "Restore it; it says how often the test split was looked at.",
            ) from None
        return looks

    def add_look(self) -> None:
        """Record one more look at the test split."""
        write_json_atomic(self.looks, [*self.read_looks(), datetime.now().isoformat(timespec="seconds")])

    def clear_leftovers(self) -> None:
        """Remove the half-written files of a killed process; only for the holder of the lock."""
        for leftover in [*self.path.glob(".*.*"), *self.path.glob("*/.*.*")]:
            if leftover.is_file():
                leftover.unlink()

    def is_locked(self) -> bool:
        """Whether a living process works in this run."""
        try:
            # For reading, since who looks may not be allowed to write; and shared, since over NFS an exclusive lock
            # needs a file that is open for writing, and two who look would take each other for a worker.
            with (self.path / ".lock").open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run; a second process gets a ConfigError. The system drops the lock with the process."""
        with (self.path / ".lock").open("a") as stream:
            # `is_locked` of another process holds the lock for an instant: one refusal is no proof.
            for wait_s in (*LOCK_WAITS_S, None):
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if wait_s is None:
                        raise ConfigError(
                            f"another process is working in {self.path}", "Wait for it, or stop it first."
                        ) from None
                    time.sleep(wait_s)
            yield


def round_number(table: Path) -> int:
    """N of mining/round-N.csv."""
    return int(table.stem.rpartition("-")[2])


def list_ensembles(root: Path) -> list[RunDir]:
    """The folders of ensembles below `root`, by name."""
    return [RunDir(path.parent) for path in sorted(root.glob("*/ensemble.json"))]


def list_runs(root: Path) -> list[RunDir]:
    """The runs below `root`, oldest first."""
    if not root.is_dir():
        return []
    return [RunDir(path.parent) for path in sorted(root.glob("*/config.toml"))]
