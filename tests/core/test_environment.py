"""The commit that a run records."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lentigo.core.environment import commit_of


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    found = subprocess.run(["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def test_commit_is_marked_where_code_differs_from_it(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == ""
    git(tmp_path, "init", "-q")
    code, study = tmp_path / "src" / "code.py", tmp_path / "studies" / "a.toml"
    for file in (code, study):
        file.parent.mkdir()
        file.write_text("a = 1\n", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path) == head
    study.write_text("a = 2\n", encoding="utf-8")
    assert commit_of(tmp_path) == head, "a study's row is recorded in its result"
    code.write_text("a = 2\n", encoding="utf-8")
    assert commit_of(tmp_path) == f"{head}+"
