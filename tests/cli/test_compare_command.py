"""`lentigo compare` as it is meant to be used, on run folders that hold nothing but predictions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lentigo.cli.compare import parse_arms
from lentigo.core.errors import ConfigError
from lentigo.core.predictions import Predictions

Command = Callable[..., Any]
FEW = ("--resamples", 200)


def predictions(seed: int, skill: float, count: int = 140) -> Predictions:
    """A table of the same images for every seed; `skill` is added to the true class's logit."""
    labels = np.arange(count) % 7
    logits = np.random.default_rng(seed).normal(size=(count, 7)).astype(np.float32)
    logits[np.arange(count), labels] += skill
    names = tuple(f"image-{i}" for i in range(count))
    return Predictions(names, names, labels, logits)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs weak-s0, weak-s1, strong-s0, strong-s1, judged on val; strong-s0 and weak-s0 on test too."""
    for name, skill in (("weak", 0.5), ("strong", 2.0)):
        for k in range(2):
            run = tmp_path / "runs" / f"{name}-s{k}"
            predictions(int(10 * skill) + k, skill).to_csv(run / "predictions" / "val.csv")
            (run / "config.toml").write_text("", encoding="utf-8")
    for name in ("weak", "strong"):
        predictions(5, 1.0).to_csv(tmp_path / "runs" / f"{name}-s0" / "predictions" / "test.csv")
    return tmp_path / "runs"


def test_two_runs(lentigo: Command, runs: Path) -> None:
    said = lentigo("compare", "runs/weak-s0", "runs/strong-s0", *FEW)
    assert (said.code, said.err) == (0, "")
    assert "strong-s0 against weak-s0" in said.out
    line = next(line for line in said.out.splitlines() if line.startswith(" balanced accuracy "))
    assert line.split()[-1] == "better"
    assert "[+" in line
    assert "balanced accuracy: better; not worse by 0.01 or more: shown" in said.out
    assert re.search(r"exact McNemar p \d(\.\d)?e-\d+\)", said.out)
    assert re.search(r"malignant AUC: 0\.\d+ and 0\.\d+, \+0\.\d+ \[\+.*\(DeLong p .*; 60 of 140 images\)", said.out)
    assert re.search(r"melanoma AUC: 0\.\d+ and 0\.\d+, .*; 20 of 140 images\)", said.out)
    assert "val: 140 images of 140 lesions, 1 training each" in said.out
    assert "other seeds may differ" in said.out
    back = lentigo("compare", "runs/strong-s0", "runs/weak-s0", *FEW, "--metric", "log_loss", "--margin", 0.2)
    assert "log loss: worse; not worse by 0.2 or more: not shown" in back.out


def test_a_run_against_itself(lentigo: Command, runs: Path) -> None:
    said = lentigo("compare", "a=runs/weak-s0", "b=runs/weak-s0", *FEW)
    assert said.code == 0
    assert (
        "balanced accuracy: no difference shown; not worse by 0.01 or more: unknown, there is no interval" in said.out
    )


def test_several_seeds_and_systems_as_json(lentigo: Command, runs: Path, tmp_path: Path) -> None:
    weak, strong = "runs/weak-s0,runs/weak-s1", "runs/strong-s0,runs/strong-s1"
    said = lentigo(
        "compare", f"base={weak}", strong, f"again={weak}", *FEW, "--seed", 3, "--json", "--out", "out/c.json"
    )
    assert said.code == 0
    assert "written: out/c.json" in said.err
    assert json.loads((tmp_path / "out" / "c.json").read_text()) == said.json
    assert [said.json[key] for key in ("n_seeds", "n_images", "seed", "paired_seeds")] == [2, 140, 3, True]
    assert [(one["baseline"], one["other"]) for one in said.json["comparisons"]] == [
        ("base", "strong"),
        ("base", "again"),
    ]
    first, second = (one["metrics"]["accuracy"] for one in said.json["comparisons"])
    assert (first["finding"], second["finding"]) == ("better", "no difference shown")
    assert first["p_holm"] == pytest.approx(2 * first["p"])
    malignant, _ = (one["delong"]["malignant"] for one in said.json["comparisons"])
    assert malignant["p_holm"] == pytest.approx(2 * malignant["p"])
    told = lentigo("compare", f"base={weak}", strong, f"again={weak}", *FEW, "--own-seeds")
    assert "2 trainings each" in told.out
    assert "corrected over the 2 systems, not over the metrics" in told.out


def test_predictions_files(lentigo: Command, runs: Path, tmp_path: Path) -> None:
    predictions(1, 1.0).to_csv(tmp_path / "old.csv")
    said = lentigo("compare", "old.csv", "runs/strong-s0/predictions/val.csv", *FEW, "--json")
    assert (said.json["comparisons"][0]["baseline"], said.json["comparisons"][0]["other"]) == ("old", "strong-s0")
    said = lentigo("compare", "old.csv", "runs/strong-s0", *FEW, "--names", "before, after", "--json")
    assert (said.json["comparisons"][0]["baseline"], said.json["comparisons"][0]["other"]) == ("before", "after")


def test_predictions_among_the_results_name_their_split(lentigo: Command, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "results" / "predictions").mkdir(parents=True)
    for name in ("s-a-s0", "s-b-s0"):
        predictions(1, 1.0).to_csv(tmp_path / "results" / "predictions" / f"{name}.test.csv")
        (tmp_path / "results" / f"{name}.json").write_text('{"synthetic": true}', encoding="utf-8")
    files = [f"results/predictions/{name}.test.csv" for name in ("s-a-s0", "s-b-s0")]
    refused = lentigo("compare", *files, *FEW)
    assert refused.code == 2
    assert "--split test" in refused.err
    said = lentigo("compare", *files, "--split", "test", *FEW, "--json")
    assert said.json["synthetic"]


def test_test_says_that_it_was_judged_before(lentigo: Command, runs: Path) -> None:
    said = lentigo("compare", "runs/weak-s0", "runs/strong-s0", "--split", "test", *FEW)
    assert said.code == 0
    assert "must have been judged before" in said.out
    said = lentigo("compare", "runs/weak-s0", "runs/strong-s0", "--split", "test", *FEW, "--json")
    assert "must have been judged before" in said.err
    assert said.json["split"] == "test"
    assert not list(runs.glob("*/test_looks.json")), "nothing is judged here"


def test_missing_predictions_are_named_all_at_once(lentigo: Command, runs: Path) -> None:
    said = lentigo("compare", "a=runs/weak-s0,runs/weak-s1", "b=runs/strong-s1,runs/none", "--split", "test", *FEW)
    assert said.code == 3
    assert (
        "runs/weak-s1 (not judged on test), runs/strong-s1 (not judged on test), runs/none (no such file)" in said.err
    )
    assert "lentigo evaluate runs/weak-s1 --split test" in said.err


def test_other_images_are_refused(lentigo: Command, runs: Path, tmp_path: Path) -> None:
    predictions(1, 1.0, 130).to_csv(tmp_path / "short.csv")
    said = lentigo("compare", "runs/weak-s0", "short.csv", "--json")
    assert said.code == 3
    assert "10 images missing" in said.json["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/weak-s0"], "two or more systems; found 1"),
        (["runs/weak-s0", "runs/weak-s0"], "different names"),
        (["runs/weak-s0", "b="], "NAME=RUN"),
        (["runs/weak-s0", "b=runs/weak-s0,"], "NAME=RUN"),
        (["runs/weak-s0", "=runs/weak-s0"], "NAME=RUN"),
        (["runs/weak-s0", "runs/strong-s0", "--names", "a"], "one name for each of 2"),
        (["runs/weak-s0", "runs/strong-s0", "--names", "a,"], "one name for each of 2"),
        (["runs/weak-s0", "runs/strong-s0", "--metric", "recall"], "expected a metric"),
        (["runs/weak-s0", "runs/strong-s0", "--margin", "0"], "margin above 0"),
        (["runs/weak-s0", "runs/strong-s0", "--split", "train"], "val or test"),
        (["runs/weak-s0", "runs/strong-s0/predictions/test.csv"], "expected predictions on val"),
    ],
)
def test_wrong_options_exit_2(lentigo: Command, runs: Path, arguments: list[str], message: str) -> None:
    said = lentigo("compare", *arguments)
    assert said.code == 2
    assert message in said.err
    assert "Traceback" not in said.err


def test_a_folder_that_is_no_run(lentigo: Command, runs: Path) -> None:
    said = lentigo("compare", "runs/weak-s0", "runs")
    assert said.code == 3
    assert "not a run folder" in said.err


def test_names_of_systems(runs: Path) -> None:
    weird = runs / "lr=0.1,wd=0"
    weird.mkdir()
    arms = parse_arms([str(weird), "runs/a-s0,runs/a-s1", "runs/p-2,runs/q-3", "runs/x=1", "m.2=runs/a-s0"], None)
    assert [arm.name for arm in arms] == ["lr=0.1,wd=0", "a", "p-2", "x=1", "m.2"]
    assert [len(arm.paths) for arm in arms] == [1, 2, 2, 1, 1]
    with pytest.raises(ConfigError):
        parse_arms([], None)


def test_drawings_carry_their_notice(lentigo: Command, trained: Path, tmp_path: Path) -> None:
    said = lentigo("compare", f"a={trained}", f"b={trained}/predictions/val.csv", *FEW)
    assert said.code == 0
    assert "say nothing about real lesions" in said.err
    assert lentigo("compare", f"a={trained}", f"b={trained}", *FEW, "--json").json["synthetic"]


def test_no_torch_is_needed(runs: Path) -> None:
    """The runtime tier is enough."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['sklearn'] = None\n"
        "from lentigo.cli.app import main\n"
        "sys.argv = ['lentigo', 'compare', 'runs/weak-s0', 'runs/strong-s0', '--resamples', '100', '--json']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_seeds"] == 1
