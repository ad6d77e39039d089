"""Files below a folder, through links, without going round in circles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lentigo.core.errors import DataError


def files_below(folder: Path, *, skip_unreadable: bool = False) -> Iterator[Path]:
    """All files, sorted by the parts of their paths, without hidden files and folders.

    Links are followed, and each folder is read once, known by its number on disk.

    Raises:
        DataError: for a folder that may not be read, unless `skip_unreadable`.
    """
    return _walk(folder, set(), skip_unreadable)


def _walk(folder: Path, seen: set[tuple[int, int]], skip_unreadable: bool) -> Iterator[Path]:
    try:
        facts = os.stat(folder)
        names = sorted(os.listdir(folder))
    except OSError as error:
        if skip_unreadable:
            return
        raise DataError(f"cannot read the folder {folder}: {error.strerror}", "Check its permissions.") from None
    if (facts.st_dev, facts.st_ino) in seen:
        return
    seen.add((facts.st_dev, facts.st_ino))
    for name in names:
        path = folder / name
        if name.startswith("."):
            continue
        if os.path.isdir(path):
            yield from _walk(path, seen, skip_unreadable)
        elif os.path.isfile(path):
            yield path
