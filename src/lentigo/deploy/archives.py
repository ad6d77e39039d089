"""Images inside a zip archive, read one by one into memory: nothing is ever extracted to disk."""

from __future__ import annotations

import copy
import io
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
_PIECE_BYTES = 2**16
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""`zipfile` unpacks the others without a limit: 600 bytes of bzip2 took 1.2 GB."""
_OTHER_METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 98: "ppmd"}
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
        DataError: where it is damaged, encrypted, compressed in an unusual way, or would unpack to too much.
    """
    name = f"{path}#{entry}"
    with _archive(path) as archive:
        try:
            info = archive.getinfo(entry)
        except KeyError:
            raise DataError(f"{path} holds no entry {entry}", "Pass the archive as it is now.") from None
        _check_method(info, name)
        try:
            _check_size(info, path.stat().st_size, name)
            return _unpack(archive, info, name)
        except _BROKEN as error:
            raise DataError(f"{name} cannot be unpacked: {error}", _AGAIN) from None


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bytes:
    """In pieces: the sizes in an archive may be wrong, and reading at once unpacks all before it cuts."""
    asked = copy.copy(info)
    asked.file_size = 2 * MAX_ENTRY_BYTES  # where it cuts; at the announced size that would hide that more comes
    content = io.BytesIO()
    with archive.open(asked) as stream:
        while piece := stream.read(_PIECE_BYTES):
            content.write(piece)
            if content.tell() > info.file_size:
                raise DataError(f"{name} unpacks to more than the {info.file_size} bytes that are announced", _AGAIN)
    return content.getvalue()


def _is_image(name: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in name.parts)
    return name.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _check_method(info: zipfile.ZipInfo, name: str) -> None:
    if info.compress_type not in METHODS:
        method = _OTHER_METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise DataError(
            f"{name} is compressed by {method}; expected an entry that is stored or deflated",
            "Unpack the archive and pass its folder, or pack it again as an ordinary zip.",
        )


def _check_size(info: zipfile.ZipInfo, archive_bytes: int, name: str) -> None:
    if info.file_size > MAX_ENTRY_BYTES:
        raise DataError(
            f"{name} is too large: at most {MAX_ENTRY_BYTES >> 20} MiB are unpacked; found {info.file_size >> 20} MiB",
            "Unpack the archive and pass its folder.",
        )
    packed_bytes = min(info.compress_size, archive_bytes)
    if info.file_size > _SMALL_BYTES and info.file_size > MAX_RATIO * packed_bytes:
        raise DataError(
            f"{name} unpacks to {info.file_size >> 20} MiB from {packed_bytes >> 10} KiB: more than "
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
