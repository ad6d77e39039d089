"""The tutorial as a newcomer follows it: its commands and its Python, in order, in an empty folder."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from unittest import mock

import pytest

from lentigo.cli.app import main
from lentigo.core.shipped import ASSETS, DEFAULT_MODEL
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.deploy.exported import MODEL_FILE

REPOSITORY = Path(__file__).resolve().parents[2]
TUTORIAL = (REPOSITORY / "docs" / "tutorial.md").read_text(encoding="utf-8")
SHIPPED = (ASSETS / DEFAULT_MODEL / MODEL_FILE).is_file()
LEFT_OUT = ("lentigo serve", "pip install", "python3.11 -m venv", "python tools/")
"""Commands that run until they are stopped, or bring what the tests have."""


def steps() -> list[str]:
    """Every line of an indented block, and every fenced Python block, in the order of the page."""
    found = re.findall(r"^```python\n((?:.*\n)*?)```|^ {4}(\S.*)$", TUTORIAL, re.MULTILINE)
    return [code or line for code, line in found]


def run_command(line: str) -> None:
    """A `lentigo ...` line in this process; it must end well."""
    with mock.patch.object(sys, "argv", shlex.split(line)):
        try:
            main()
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
    assert code == 0, line


@pytest.mark.slow
def test_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    done = []
    for step in steps():
        asks_shipped = step.startswith("lentigo predict") and "--model" not in step
        if step.startswith(LEFT_OUT) or (asks_shipped and not SHIPPED):
            continue
        if step.startswith("lentigo "):
            run_command(step)
        else:
            exec(compile(step, "docs/tutorial.md", "exec"), {})
        done.append(step)
    assert len(done) >= 10
    assert all((tmp_path / name).is_file() for name in ("runs/first/report.html", "answers.csv", "figures/images.png"))
    assert "SYNTH_0000002.jpg" in (tmp_path / "answers.csv").read_text(encoding="utf-8")
    label, probability, _ = capsys.readouterr().out.splitlines()[-1].split()
    assert label in CLASS_CODES
    assert 0 <= float(probability) <= 1


def test_pictures_are_small() -> None:
    """A page with pictures still loads at once, and a clone stays small."""
    for picture in re.findall(r"\]\((images/[^)]+)\)", TUTORIAL):
        assert (REPOSITORY / "docs" / picture).stat().st_size < 200_000, picture
