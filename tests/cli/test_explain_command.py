"""`lentigo explain` on the shared tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from lentigo.cli.explain import explain
from lentigo.core.errors import DataError

app = typer.Typer()
app.command()(explain)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_val_as_a_table_and_as_json(copied: Path) -> None:
    said = call(copied, "--count", 1)
    assert said.exit_code == 0, said.output
    assert "area while the salient parts go first" in said.stdout
    assert "Deletion against a random order" in said.stdout
    assert "say nothing about real lesions" in said.stderr
    assert f"next: lentigo report {copied}" in said.stderr
    found = json.loads(call(copied, "--count", 1, "--json").stdout)
    assert found == json.loads((copied / "explain" / "check.json").read_text(encoding="utf-8"))
    assert {path.name for path in (copied / "explain").glob("*.jpg")} == {one["file"] for one in found["images"]}
    assert len(found["findings"]) == 3
    assert found["check"]["deletion"]["n"] == len(found["images"])


def test_files_and_a_class(copied: Path, drawn: Path) -> None:
    files = sorted((drawn.parent / "images").glob("*.jpg"))[:2]
    found = json.loads(call(copied, *files, "--class", "MEL", "--json").stdout)
    assert [one["shown"] for one in found["images"]] == ["mel", "mel"]
    assert (copied / "explain" / "given" / f"{files[0].stem}-mel.jpg").is_file()
    assert not (copied / "explain" / "check.json").exists()


@pytest.mark.parametrize("options", [("--split", "test"), ("--class", "wart"), ("no-such-file.jpg",)])
def test_what_cannot_be_explained(copied: Path, options: tuple[str, ...]) -> None:
    said = call(copied, *options)
    assert isinstance(said.exception, DataError)
    assert not (copied / "explain").exists()
    assert not (copied / "test_looks.json").exists()


def test_wrong_options_exit_2(copied: Path) -> None:
    assert call(copied, "--split", "train").exit_code == 2
    assert call(copied, "--count", 0).exit_code == 2
