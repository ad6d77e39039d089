"""A folder of several files that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lentigo.core.errors import ConfigError
from lentigo.deploy.exported import MODEL_FILE


def check_folder(folder: Path, force: bool) -> None:
    """Raise ConfigError where an export may not be written to `folder`; only an older export is ever replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MODEL_FILE).is_file():
        raise ConfigError(
            f"{folder} exists and is no export: no {MODEL_FILE} in it",
            "Name a new folder with --out.",
        )
    if not force:
        raise ConfigError(f"{folder} holds an export already", "Replace it with --force, or name another with --out.")


@contextmanager
def output_folder(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """An empty sibling of `folder` to write to, which takes its name at the end; removed where anything fails.

    Raises:
        ConfigError: as `check_folder`.
    """
    check_folder(folder, force)
    folder = folder.absolute()
    partial, old = (folder.with_name(f".{folder.name}.{kind}-{os.getpid()}") for kind in ("partial", "old"))
    partial.mkdir(parents=True)
    try:
        yield partial
        check_folder(folder, force)  # somebody may have written to it meanwhile
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
