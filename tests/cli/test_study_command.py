"""`lentigo study` on drawings of 48 px: plan, run, run again, and what it says when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

Command = Callable[..., Any]


@pytest.fixture
def study_file(tiny: tuple[str, ...], tmp_path: Path) -> Path:
    """A study of two rows, each a training of seconds."""
    changes = [option.removeprefix("--set=") for option in tiny if option.startswith("--set=")]
    row = {"recipe": "quick", "weights": "none", "set": changes}
    rows = [{"id": "one", **row}, {"id": "two", **row}]
    values = {"name": "small", "title": "Small", "track": "drawn", "rows": rows}
    (tmp_path / "small.toml").write_text(tomli_w.dumps(values))
    return tmp_path / "small.toml"


def test_plan_run_and_run_again(lentigo: Command, study_file: Path, split: Path, tmp_path: Path) -> None:
    given = ("study", study_file, "--data", split, "--accelerator", "cpu")
    plan = lentigo(*given, "--dry-run", "--json")
    assert plan.code == 0
    assert [(fact["row"], fact["seed"], fact["state"]) for fact in plan.json["plan"]] == [
        ("one", 0, "to run"),
        ("two", 0, "to run"),
    ]
    assert not list(tmp_path.glob("r*")), "a plan writes nothing"

    first = lentigo(*given, "--only", "one", "--json")
    assert first.code == 0, first.err
    assert first.json == {"written": ["results/small-one-s0.json"], "left": [], "interrupted": None}
    assert "small: 1 of 1: one, seed 0 (small-one-s0)" in first.err
    assert "epoch 1/1" in first.err
    assert json.loads((tmp_path / "results/small-one-s0.json").read_text())["synthetic"] is True
    assert (tmp_path / "results/predictions/small-one-s0.val.csv").is_file()

    again = lentigo(*given, "--dry-run")
    assert again.code == 0
    assert "1 of 2 trainings done" in again.err
    assert "to run" in again.out
    nothing = lentigo(*given, "--only", "one")
    assert nothing.code == 0
    assert "all was done" in nothing.err

    study_file.write_text(study_file.read_text().replace("training.epochs=1", "training.epochs=2"))
    changed = lentigo(*given, "--dry-run")
    assert changed.code == 2
    assert "results/small-one-s0.json was made with other settings" in changed.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "ones"), "small has no row ones (did you mean one?)"),
        (("--accelerator", "tpu"), "'tpu' is"),
        (("--time-limit", "0"), "--time-limit must be above zero"),
        (("--time-limit", "soon"), "a time takes the form"),
    ],
)
def test_wrong_options(lentigo: Command, study_file: Path, split: Path, options: tuple[str, ...], said: str) -> None:
    answer = lentigo("study", study_file, "--data", split, *options)
    assert answer.code == 2
    assert said in answer.err


def test_help_has_examples(lentigo: Command) -> None:
    said = lentigo("study", "--help")
    assert said.code == 0
    assert "lentigo study studies/report-gray.toml --data ham10000.csv" in " ".join(said.out.split())
