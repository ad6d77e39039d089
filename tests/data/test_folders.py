"""Files below a folder: sorted, without hidden ones, through links, each folder once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lentigo.core.errors import DataError
from lentigo.data.folders import files_below


def test_order_links_and_hidden_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a.d/x.txt", "a/y.txt", "a/.z.txt", ".c/v.txt", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name, target in (
        ("a/up", ".."),
        ("a/z", "../a.d"),
        ("link.txt", "b.txt"),
        ("gone", "nowhere"),
        ("ring", "ring"),
    ):
        (tmp_path / name).symlink_to(target)
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert found == ["a/y.txt", "a/z/x.txt", "a.txt", "b.txt", "link.txt"]


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the folder"):
        list(files_below(tmp_path / "gone"))
    assert list(files_below(tmp_path / "gone", skip_unreadable=True)) == []
