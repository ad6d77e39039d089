"""Atomic writing."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from lentigo.core.files import write_atomic, write_json_atomic, write_text_atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_text_atomic(tmp_path / "deep" / "file.txt", "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne", encoding="utf-8")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, half)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(path.parent.iterdir()) == [path]


def test_the_file_is_complete_when_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "file.txt", []
    replace = os.replace

    def watch(source: Path, target: Path) -> None:
        seen.append((Path(source).read_text(encoding="utf-8"), Path(source).parent, target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    write_text_atomic(path, "line\r\nline\n")
    assert seen == [("line\nline\n", tmp_path, path)]
    assert path.read_bytes() == b"line\r\nline\n"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = write_text_atomic(tmp_path / "file.txt", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.umask(old) == old


def test_json(tmp_path: Path) -> None:
    path = write_json_atomic(tmp_path / "a.json", {"name": "Müller", "value": None})
    assert "Müller" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Müller", "value": None}
    with pytest.raises(ValueError, match="Out of range"):
        write_json_atomic(path, {"value": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["value"] is None
