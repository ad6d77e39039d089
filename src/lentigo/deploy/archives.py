"""Images inside a zip archive, read one by one into memory: nothing is ever extracted to disk."""

from __future__ import annotations

import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath

from lentigo.core.errors import DataError
from lentigo.data.images import IMAGE_SUFFIXES, MAX_FILE_BYTES

MAX_ENTRY_BYTES = MAX_FILE_BYTES
"""Longest entry once it is unpacked."""
MAX_RATIO = 200
"""Photographs hardly shrink in an archive, and flat drawings 50 times; bombs a thousand times."""
_SMALL_BYTES = 2**20
_AGAIN = "Copy or download the archive again."
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)

_READING = threading.Lock()
"""`ZipFile` counts its readers without a lock. Reading takes a fraction of the time of decoding."""


def list_entries(path: Path) -> list[str]:
    """Names of the entries that end like images, sorted, without hidden ones; each name once.

    Raises:
        DataError: where the file is no readable zip archive.
    """
    with _archive(path) as archive:
        names = {info.filename for info in archive.infolist() if not info.is_dir()}
    return sorted(name for name in names if _is_image(PurePosixPath(name)))


def read_entry(path: Path, entry: str) -> bytes:
    """The unpacked bytes of one entry.

    Raises:
        DataError: where it is damaged, encrypted, or would unpack to too much.
    """
    name = f"{path}#{entry}"
    with _archive(path) as archive:
        try:
            info = archive.getinfo(entry)
        except KeyError:
            raise DataError(f"{path} holds no entry {entry}", "Pass the archive as it is now.") from None
        _check_size(info, name)
        try:
            with archive.open(info) as stream:
                return stream.read()  # never more than the size that its header gives
        except _BROKEN as error:
            raise DataError(f"{name} cannot be unpacked: {error}", _AGAIN) from None


def _is_image(name: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in name.parts)
    return name.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _check_size(info: zipfile.ZipInfo, name: str) -> None:
    if info.file_size > MAX_ENTRY_BYTES:
        raise DataError(
            f"{name} is too large: at most {MAX_ENTRY_BYTES >> 20} MiB are unpacked; found {info.file_size >> 20} MiB",
            "Unpack the archive and pass its folder.",
        )
    if info.file_size > _SMALL_BYTES and info.file_size > MAX_RATIO * info.compress_size:
        raise DataError(
            f"{name} unpacks to {info.file_size >> 20} MiB from {info.compress_size >> 10} KiB: more than "
            f"{MAX_RATIO} times, as decompression bombs do",
            "Unpack the archive and pass its folder, if you trust it.",
        )


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The open archive, for this thread alone."""
    with _READING:
        try:
            archive = _open(path, path.stat().st_mtime_ns)
        except FileNotFoundError:
            raise DataError(f"no archive at {path}", "Check the path.") from None
        except _BROKEN as error:
            raise DataError(f"{path} is no readable zip archive: {error}", _AGAIN) from None
        yield archive


@lru_cache(maxsize=4)
def _open(path: Path, modified_ns: int) -> zipfile.ZipFile:
    """Kept open: reading the list of entries anew for each would take time by the square of their number."""
    return zipfile.ZipFile(path)
