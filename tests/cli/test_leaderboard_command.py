"""`lentigo leaderboard` and `lentigo ensemble` as they are meant to be used."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..evaluation.judged import judged_run, predictions

Command = Callable[..., Any]
FEW = ("--resamples", 200)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs a, b and c, judged on val; a and b on test too."""
    root = tmp_path / "runs"
    judged_run(root, "a", {"val": predictions(1, 1.0), "test": predictions(4, 1.0)}, looks=1)
    judged_run(root, "b", {"val": predictions(2, 2.0), "test": predictions(5, 2.0)}, looks=1)
    judged_run(root, "c", {"val": predictions(3, 0.5)})
    return root


def test_leaderboard(lentigo: Command, runs: Path) -> None:
    said = lentigo("leaderboard", *FEW)
    assert (said.code, said.err) == (0, "")
    rows = [line.split() for line in said.out.splitlines() if re.search(r"\d% \(", line)]
    assert [row[0] for row in rows] == ["b", "a", "c"], "a run fills one line"
    assert rows[0][-1] == "best"
    assert "Holm p over 2 of them" in said.out
    assert "val: 140 images of 140 lesions" in said.out


def test_leaderboard_as_json_and_markdown(lentigo: Command, runs: Path, tmp_path: Path) -> None:
    said = lentigo("leaderboard", "runs", "--metric", "malignant_auc", *FEW, "--json", "--out", "out/board.md")
    assert said.code == 0
    assert "written: out/board.md" in said.err
    (table,) = said.json["tables"]
    assert [row["name"] for row in table["rows"]] == ["b", "a", "c"]
    assert table["rows"][1]["against_best"]["p_holm"] > 0.0
    assert (tmp_path / "out" / "board.md").read_text(encoding="utf-8").startswith("# Leaderboard\n")


def test_leaderboard_of_test_says_what_it_is(lentigo: Command, runs: Path) -> None:
    said = lentigo("leaderboard", "--split", "test", *FEW)
    assert said.code == 0
    assert "one more look" in said.out
    assert "left out: c (not judged on test)" in said.err
    assert len(json.loads((runs / "a" / "test_looks.json").read_text())) == 1, "nothing is judged here"


def test_no_runs(lentigo: Command) -> None:
    said = lentigo("leaderboard", "--json")
    assert said.code == 0
    assert said.json == {"tables": [], "left_out": {}}
    assert "no run in runs was judged on val" in said.err


def test_ensemble(lentigo: Command, runs: Path) -> None:
    said = lentigo("ensemble", "runs/a", "runs/b", "runs/c", "--name", "three", *FEW)
    assert said.code == 0, said.err
    assert "Best member by balanced accuracy on val; these very images, which flatters it: b" in said.out
    assert "three against b" in said.out
    assert "next: lentigo leaderboard" in said.err
    assert "three" in lentigo("leaderboard", *FEW).out
    compared = lentigo("compare", "runs/b", "runs/three", *FEW, "--json")
    assert compared.json["comparisons"][0]["other"] == "three"


def test_ensemble_on_test(lentigo: Command, runs: Path) -> None:
    refused = lentigo("ensemble", "runs/a", "runs/c", "--name", "two", "--split", "test", *FEW)
    assert refused.code == 3
    assert "lentigo evaluate runs/c --split test" in refused.err
    assert not (runs / "two").exists()
    made = lentigo("ensemble", "runs/a", "runs/b", "--name", "two", "--split", "test", *FEW, "--json")
    assert made.code == 0
    assert [made.json[key] for key in ("split", "best", "best_chosen_on", "test_looks")] == ["test", "b", "val", 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ensemble", "runs/a", "--name", "x"], "two or more runs; found 1"),
        (["ensemble", "runs/a", "runs/b", "--name", "a"], "that of a member"),
        (["ensemble", "runs/a", "runs/b"], "--name"),
        (["leaderboard", "--metric", "recall"], "expected a metric"),
        (["leaderboard", "--split", "train"], "val or test"),
    ],
)
def test_wrong_options_exit_2(lentigo: Command, runs: Path, arguments: list[str], message: str) -> None:
    said = lentigo(*arguments)
    assert said.code == 2
    assert message in said.err
    assert "Traceback" not in said.err


def test_a_real_run_and_its_notice(lentigo: Command, trained: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    made = lentigo("ensemble", "runs/one", "runs/two", "--name", "both", *FEW)
    assert made.code == 0, made.err
    assert "say nothing about real lesions" in made.err
    said = lentigo("leaderboard", "--latency", *FEW, "--json")
    (table,) = said.json["tables"]
    assert table["synthetic"]
    assert {row["name"] for row in table["rows"]} == {"one", "two", "both"}
    assert all(row["latency"]["n"] == 30 for row in table["rows"])
    assert len({row["scores"]["accuracy"]["value"] for row in table["rows"]}) == 1


def test_an_ensemble_needs_no_torch(runs: Path) -> None:
    """The runtime tier is enough."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['scipy'] = None\n"
        "from lentigo.cli.app import main\n"
        "sys.argv = ['lentigo', 'ensemble', 'runs/a', 'runs/b', '--name', 'two', '--resamples', '100', '--json']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "two"
