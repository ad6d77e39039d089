"""`lentigo score` as it is meant to be used: files in, table or JSON out, with the runtime tier alone."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import ISIC_2018_COLUMNS, parse_label
from lentigo.data.sources import load_catalog

Command = Callable[..., Any]
FEW = ("--resamples", 100)
NOT_IN_THE_RUNTIME = ("torch", "torchvision", "pandas", "sklearn", "scipy", "matplotlib", "pyarrow", "safetensors")
LABELS = [parse_label(column) for column in ISIC_2018_COLUMNS]


def write_table(path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = ISIC_2018_COLUMNS) -> None:
    """A CSV whose first column is image."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["image", *header], *rows])


@pytest.fixture
def files(tmp_path: Path) -> Predictions:
    """truth.csv, predictions.csv, lesions.csv and own.csv of the same 60 images of 40 lesions."""
    generator = np.random.default_rng(3)
    labels = np.arange(60) % 7
    logits = generator.normal(size=(60, 7)).astype(np.float32)
    logits[np.arange(60), labels] += 1.5
    names = tuple(f"ISIC_{i:07d}" for i in range(60))
    lesions = tuple(f"L{i % 35}" if i < 35 else f"L{i - 35}" if i < 55 else f"L{i}" for i in range(60))
    table = Predictions(names, lesions, labels.astype(np.int64), logits)
    one_hot = np.eye(7)[labels][:, LABELS]
    write_table(tmp_path / "truth.csv", [[name, *row] for name, row in zip(names, one_hot, strict=True)])
    rows = zip(names, table.probs[:, LABELS].tolist(), strict=True)
    write_table(tmp_path / "predictions.csv", [[f"{name}.jpg", *row] for name, row in rows])
    write_table(tmp_path / "lesions.csv", list(zip(names, lesions, strict=True)), ("lesion_id",))
    table.to_csv(tmp_path / "own.csv")
    return table


def test_a_table_for_people(lentigo: Command, files: Predictions) -> None:
    said = lentigo("score", "predictions.csv", "truth.csv", *FEW)
    assert (said.code, said.err) == (0, "")
    assert "balanced multi-class accuracy" in said.out
    assert "60 images; 95% image bootstrap (lesions unknown" in said.out
    recall = np.mean([(files.probs.argmax(axis=1) == c)[files.label == c].mean() for c in range(7)])
    line = next(line for line in said.out.splitlines() if "balanced multi-class" in line)
    assert f"{recall:.4f}" in line
    assert all(column in said.out for column in ISIC_2018_COLUMNS)


def test_json_with_lesions_is_the_same_as_that_of_an_own_table(lentigo: Command, files: Predictions) -> None:
    given = lentigo("score", "predictions.csv", "truth.csv", "--groups", "lesions.csv", "--seed", 5, *FEW, "--json")
    own = lentigo("score", "own.csv", "--seed", 5, *FEW, "--json")
    assert (given.code, own.code) == (0, 0)
    assert given.json["interval"] == "95% lesion-cluster bootstrap"
    assert (given.json["n_images"], given.json["n_lesions"]) == (60, 40)
    assert given.json == own.json
    headline = given.json["balanced_accuracy"]
    assert headline["ci_low"] < headline["value"] < headline["ci_high"]
    assert headline["n"] == 60


def test_a_data_set_is_a_truth_with_its_lesions(
    lentigo: Command, files: Predictions, tmp_path: Path, split: Path
) -> None:
    catalog = load_catalog(split).split("val")
    generator = np.random.default_rng(1)
    probs = generator.dirichlet(np.ones(7), size=len(catalog))
    rows = zip([row.image_id for row in catalog], probs[:, LABELS].tolist(), strict=True)
    write_table(tmp_path / "mine.csv", [[name, *row] for name, row in rows])
    said = lentigo("score", "mine.csv", split, "--split", "val", *FEW, "--json")
    assert said.code == 0
    assert said.json["synthetic"]
    assert (said.json["n_images"], said.json["n_lesions"]) == (
        len(catalog),
        len({row.lesion_id for row in catalog}),
    )
    hit = probs.argmax(axis=1) == catalog.labels
    recalls = [hit[catalog.labels == label].mean() for label in np.unique(catalog.labels)]
    assert said.json["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))
    whole = lentigo("score", "mine.csv", split, *FEW)
    assert whole.code == 3
    assert "images missing" in whole.err
    assert lentigo("score", "mine.csv", split, "--split", "vall").code == 2
    assert lentigo("score", "mine.csv", split, "--groups", "lesions.csv").code == 2
    assert lentigo("score", "mine.csv", "truth.csv", "--split", "val").code == 2


def test_ties_and_weightless_images_are_told(lentigo: Command, files: Predictions, tmp_path: Path) -> None:
    rows = [line.split(",") for line in (tmp_path / "predictions.csv").read_text().split()]
    rows[1][1:] = ["0.5"] * 7
    write_table(tmp_path / "tied.csv", rows[1:])
    for name in ("tied.csv", "truth.csv"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("ISIC_0000059", "ISIC_0035068"))
    said = lentigo("score", "tied.csv", "truth.csv", *FEW)
    assert "1 images without an answer" in said.out
    assert "1 images of weight 0 are left out" in said.out
    assert "59 images" in said.out


def test_every_problem_of_a_file_is_told_and_exits_3(lentigo: Command, files: Predictions, tmp_path: Path) -> None:
    rows = [line.split(",") for line in (tmp_path / "predictions.csv").read_text().split()][1:]
    rows[0][2], rows[1][3], rows[2][4] = "nan", "1.5", "x"
    write_table(tmp_path / "wrong.csv", [*rows[:-1], rows[0]])
    said = lentigo("score", "wrong.csv", "truth.csv", "--json")
    assert said.code == said.json["exit_code"] == 3
    for part in ("given twice: ISIC_0000000", "values missing", "outside 0..1", "no number", "missing: ISIC_0000059"):
        assert part in said.json["error"]
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predictions.csv"], 2, "found no TRUTH"),
        (["own.csv", "--groups", "lesions.csv"], 2, "its own lesions"),
        (["own.csv", "truth.csv"], 3, "scored alone"),
        (["predictions.csv", "none.csv"], 3, "found none at none.csv"),
        (["predictions.csv", "truth.csv", "--groups", "truth.csv"], 3, "no lesion_id"),
        (["predictions.csv", "truth.csv", "--resamples", "1"], 2, "100"),
    ],
)
def test_what_cannot_be_scored(
    lentigo: Command, files: Predictions, arguments: list[str], code: int, message: str
) -> None:
    said = lentigo("score", *arguments)
    assert said.code == code
    assert message in said.err
    assert "Traceback" not in said.err


def test_drawings_carry_their_notice(lentigo: Command, trained: Path) -> None:
    said = lentigo("score", trained / "predictions" / "val.csv", *FEW)
    assert said.code == 0
    assert "say nothing about real lesions" in said.err
    assert lentigo("score", trained / "predictions" / "val.csv", *FEW, "--json").json["synthetic"]


def test_the_runtime_tier_is_enough(files: Predictions) -> None:
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({NOT_IN_THE_RUNTIME!r}))\n"
        "from lentigo.cli.app import main\n"
        "sys.argv = ['lentigo', 'score', 'predictions.csv', 'truth.csv', '--resamples', '100', '--json']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_images"] == 60
