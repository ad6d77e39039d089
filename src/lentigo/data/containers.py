"""Images inside container files: arrays of a MedMNIST `.npz`, rows of a Parquet pack."""

from __future__ import annotations

import threading
import zipfile
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import DataError, MissingExtraError

CACHE_BYTES = 2 * 2**30
"""Decompressed arrays and row groups kept per process: DermaMNIST at 224 px (1.5 GB) fits whole."""
MAX_ARRAY_BYTES = 4 * 2**30
"""The largest array of an `.npz` that is loaded; beyond this a pack is the better container."""

_BROKEN_NPZ = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, NotImplementedError)


class _BoundedCache:
    """Least-recently-used values with an `nbytes`, bounded by their sum; the newest always stays."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._values: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        # Held while loading: threads that want the same gigabyte wait for one load instead of repeating it.
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...], load: Callable[[], Any]) -> Any:
        """The value of `key`, loaded on first use."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            value = self._values[key] = load()
            while len(self._values) > 1 and sum(v.nbytes for v in self._values.values()) > self._limit_bytes:
                self._values.popitem(last=False)
            return value


_CACHE = _BoundedCache(CACHE_BYTES)


def npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of every array of an `.npz`, without decompressing one.

    Raises:
        DataError: where the file is missing or is not a readable `.npz`.
    """
    return _npz_headers(path, _modified(path))


@lru_cache(maxsize=16)
def _npz_headers(path: Path, modified_ns: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    headers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(stream)
                    headers[name.removesuffix(".npy")] = (shape, dtype)
    except _BROKEN_NPZ as error:
        raise _broken(path, "an .npz archive of arrays", error) from None
    return headers


def load_npz_array(path: Path, name: str) -> NDArray[Any]:
    """One array of an `.npz`, kept in the process-wide cache; read-only.

    Raises:
        DataError: where the file or array is missing, damaged, holds objects or is over `MAX_ARRAY_BYTES`.
    """
    headers = npz_headers(path)
    if name not in headers:
        raise DataError(
            f"{path} has no array {name!r}; it has {', '.join(sorted(headers))}",
            "Pass the file that the catalogue was made from.",
        )
    shape, dtype = headers[name]
    size_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size_bytes > MAX_ARRAY_BYTES:
        raise DataError(
            f"array {name!r} of {path} takes {size_bytes / 2**30:.1f} GiB; "
            f"at most {MAX_ARRAY_BYTES >> 30} GiB are loaded",
            "Use the data set in a smaller resolution, or unpack it to image files.",
        )

    def load() -> NDArray[Any]:
        try:
            with np.load(path, allow_pickle=False) as archive:
                array: NDArray[Any] = archive[name]
        except _BROKEN_NPZ as error:
            raise _broken(path, f"a readable array {name!r}", error) from None
        array.setflags(write=False)
        return array

    loaded: NDArray[Any] = _CACHE.get((str(path), _modified(path), name), load)
    return loaded


def read_npz_image(path: Path, member: str) -> NDArray[np.uint8]:
    """The image that `member` ("train_images/12") names: uint8, (H, W, 3) RGB or (H, W) grey.

    Raises:
        DataError: where the member does not exist or is no image.
    """
    name, index = _parse_npz_member(path, member)
    image: NDArray[np.uint8] = load_npz_array(path, name)[index]
    return image


def npz_image_size(path: Path, member: str) -> tuple[int, int]:
    """(width, height) in pixels of an `.npz` member, from the array's header."""
    name, _ = _parse_npz_member(path, member)
    height, width = npz_headers(path)[name][0][1:3]
    return width, height


def is_image_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether an array is uint8 (N, H, W, 3) or (N, H, W)."""
    grey_or_rgb = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
    return dtype == np.uint8 and grey_or_rgb and min(shape[1:]) > 0


def _parse_npz_member(path: Path, member: str) -> tuple[str, int]:
    name, _, number = member.rpartition("/")
    header = npz_headers(path).get(name)
    if header is None or not is_image_array(*header) or not _is_index(number, header[0][0]):
        raise _no_member(path, member)
    return name, int(number)


def _is_index(text: str, count: int) -> bool:
    return text.isascii() and text.isdigit() and int(text) < count


def read_parquet_bytes(path: Path, member: str) -> bytes:
    """The encoded image of one row ("row:17") of a Parquet file's `image` column.

    The column is a binary one, or Hugging Face's struct of `bytes` and `path`. Row groups are cached, so a
    shuffled epoch decompresses each of them once.

    Raises:
        DataError: where the row does not exist or the file is damaged.
        MissingExtraError: without pyarrow.
    """
    modified_ns = _modified(path)
    column, ends = _parquet_layout(path, modified_ns)
    kind, _, number = member.partition(":")
    if kind != "row" or not _is_index(number, ends[-1] if ends else 0):
        raise _no_member(path, member)
    index = int(number)
    group = bisect_right(ends, index)
    images = _CACHE.get((str(path), modified_ns, group), lambda: _read_row_group(path, column, group))
    data: bytes | None = images[index - (ends[group - 1] if group else 0)].as_py()
    if data is None:
        raise DataError(f"{path}#{member} holds no image bytes", "Write the pack again with `lentigo data pack`.")
    return data


@lru_cache(maxsize=16)
def _parquet_layout(path: Path, modified_ns: int) -> tuple[str, tuple[int, ...]]:
    """The dotted name of the image column, and the row number at which each row group ends."""
    metadata = open_parquet(path).metadata
    leaves = {metadata.schema.column(i).path for i in range(metadata.num_columns)}
    column = next((name for name in ("image.bytes", "image") if name in leaves), None)
    if column is None:
        raise DataError(
            f"{path} has no column `image`; its columns are {', '.join(sorted(leaves))}",
            "Pass a pack written by `lentigo data pack`.",
        )
    counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return column, tuple(int(end) for end in np.cumsum(counts))


def _read_row_group(path: Path, column: str, group: int) -> Any:
    # The file is opened for every group and read in this thread: neither an open file nor arrow's thread
    # pool is then shared with forked loader workers.
    try:
        images = open_parquet(path).read_row_group(group, columns=[column], use_threads=False)["image"]
    except (OSError, ValueError) as error:
        raise _broken(path, f"a readable row group {group}", error) from None
    images = images.combine_chunks()
    return images.field("bytes") if column == "image.bytes" else images


def open_parquet(path: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile`.

    Raises:
        DataError: where the file is missing or is not Parquet.
        MissingExtraError: without pyarrow.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "train") from None
    _modified(path)
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise _broken(path, "a Parquet file", error) from None


def _modified(path: Path) -> int:
    """The time of the last change in ns, part of every cache key so that a rewritten file is read again."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        raise DataError(f"no file at {path}", "Restore the file, or make the catalogue again.") from None


def _no_member(path: Path, member: str) -> DataError:
    return DataError(
        f"{path} holds no image {member!r}",
        'Members are named like "train_images/12" (.npz) or "row:17" (Parquet); make the catalogue again.',
    )


def _broken(path: Path, expected: str, error: Exception) -> DataError:
    return DataError(
        f"{path}: expected {expected}; it is damaged or something else ({error})",
        "Download or write the file again.",
    )
