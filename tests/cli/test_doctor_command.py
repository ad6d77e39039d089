"""`lentigo doctor`: what the shipped model and the page need."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lentigo.core import shipped
from lentigo.deploy import static_site

Command = Callable[..., Any]


def rows(said: Any) -> dict[str, dict[str, Any]]:
    """Name of a check -> its row."""
    assert (said.code, said.err) == (0, "")
    return {check["check"]: check for check in said.json["checks"]}


def test_a_page_without_its_runtime_is_named(lentigo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_site, "WEB", tmp_path)
    missing = rows(lentigo("doctor", "--json"))["browser runtime"]
    assert not missing["ok"]
    for text in (*static_site.RUNTIME_FILES, "python tools/vendor_web.py"):
        assert text in missing["found"]
    (tmp_path / "vendor").mkdir()
    for file in static_site.RUNTIME_FILES:
        (tmp_path / "vendor" / file).touch()
    assert rows(lentigo("doctor", "--json"))["browser runtime"]["ok"]


def test_a_shipped_model_that_is_missing_or_damaged_is_named(
    lentigo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows(lentigo("doctor", "--json"))["shipped model"]["ok"]
    shutil.copytree(shipped.ASSETS / shipped.DEFAULT_MODEL, tmp_path / shipped.DEFAULT_MODEL)
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    graph = next((tmp_path / shipped.DEFAULT_MODEL).glob("*.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1])
    damaged = rows(lentigo("doctor", "--json"))["shipped model"]
    assert not damaged["ok"]
    assert graph.name in damaged["found"]
    shutil.rmtree(tmp_path / shipped.DEFAULT_MODEL)
    missing = rows(lentigo("doctor", "--json"))["shipped model"]
    assert not missing["ok"]
    assert "no exported model" in missing["found"]
