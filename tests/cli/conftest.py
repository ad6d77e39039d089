"""The command line in process, and one tiny data set and trained run that all its tests share."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from lentigo.cli.app import main

TINY = (
    "--set=preprocess.resize_steps_px=[48]",
    "--set=training.batch_size=8",
    "--set=training.epochs=1",
    "--set=data.cache=memory",
    "--set=regularization.ema_decay=0",
    "--weights=none",
    "--accelerator=cpu",
)
"""Options that make a training a matter of seconds."""


@dataclass(frozen=True)
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which must be JSON and nothing else."""
        return json.loads(self.out)


def run_lentigo(*arguments: object) -> Said:
    """`lentigo ARGUMENTS` in this process, its streams not terminals."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["lentigo", *(str(argument) for argument in arguments)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code: object = 0
        except SystemExit as end:
            code = end.code
    assert code is None or isinstance(code, int), code
    return Said(int(code or 0), out.getvalue(), err.getvalue())


def must(*arguments: object) -> Said:
    """`run_lentigo` where nothing else than success will do."""
    said = run_lentigo(*arguments)
    assert said.code == 0, said.err
    return said


@pytest.fixture(scope="session")
def lentigo() -> Callable[..., Said]:
    """`lentigo(*arguments) -> Said`."""
    return run_lentigo


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Options for a training of seconds."""
    return TINY


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of 100 drawings of 48 px."""
    folder = tmp_path_factory.mktemp("cli") / "drawn"
    must("data", "synth", folder, "--images", 100, "--size-px", 48, "--seed", 1)
    return folder / "synthetic.csv"


@pytest.fixture(scope="session")
def split(drawn: Path) -> Path:
    """The drawings in train, val and test."""
    out = drawn.parents[1] / "split.csv"
    must("data", "split", drawn, "--out", out, "--fractions", "train=0.6,val=0.2,test=0.2",
         "--allow-missing-classes", "--no-near-duplicates")  # fmt: skip
    return out


@pytest.fixture(scope="session")
def trained(split: Path) -> Path:
    """A run of one epoch, judged on val. Shared: copy it before you change it."""
    must("train", split, *TINY, "--runs-dir", split.parent / "runs", "--name", "shared")
    run = split.parent / "runs" / "shared"
    must("evaluate", run, "--resamples", 100)
    return run


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """An own copy of the trained run."""
    return Path(shutil.copytree(trained, tmp_path / "copied"))


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path) -> Iterator[None]:
    """Each test works in its own folder, so that `runs` and `demo` would appear there."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield
    os.chdir(before)
