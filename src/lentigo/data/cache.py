"""Decoded images kept at hand, so that the cores train instead of decoding JPEG every epoch."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lentigo import __version__
from lentigo.core.config import DataConfig
from lentigo.core.errors import DataError, first_five
from lentigo.data.catalog import Catalog, Row
from lentigo.data.images import image_size, load_image
from lentigo.data.preprocess import Preprocess


@dataclass(frozen=True)
class ImageSource:
    """Images after `Preprocess.first_step`: the first `len(cached)` from the cache, the others from disk.

    cached: (K, S, S) or (K, S, S, 3) uint8, in memory or memory-mapped.
    """

    catalog: Catalog
    preprocess: Preprocess
    cached: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.catalog)

    def __getitem__(self, index: int) -> Image.Image:
        if index < len(self.cached):
            return Image.fromarray(self.cached[index])
        row = self.catalog.rows[index]
        return self.preprocess.first_step(load_image(row.path, row.member))


def open_images(
    catalog: Catalog,
    preprocess: Preprocess,
    config: DataConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    limit_bytes: int | None = None,
) -> ImageSource:
    """Decode every image once, into memory or a memory-mapped file in the user's cache folder.

    `limit_bytes` is what is left of `data.cache_limit_mb` where several sources share it. Of images that are not
    kept the header alone is read.

    Raises:
        DataError: naming all images that cannot be read, before any training; damage behind the header of one that is
            not kept shows when it is decoded.
    """
    shape = _image_shape(preprocess)
    image_bytes = int(np.prod(shape))
    limit_bytes = config.cache_limit_mb * 2**20 if limit_bytes is None else limit_bytes
    count = 0 if config.cache == "none" else min(len(catalog), max(0, limit_bytes) // image_bytes)
    size = (count, *shape)
    kind = config.cache
    if kind == "auto":
        kind = "memory" if count * image_bytes < available_memory_bytes() // 2 else "disk"
    if count == 0 or kind == "memory":
        target = np.empty(size, dtype=np.uint8)
        _read_all(target, catalog.rows, preprocess, progress)
        return ImageSource(catalog, preprocess, target)
    path = cache_folder() / f"images-{_cache_key(catalog, preprocess, count)}.npy"
    if path.is_file():
        _read_all(np.empty((0, *shape), dtype=np.uint8), catalog.rows[count:], preprocess, progress)
    else:
        _build_file(path, size, catalog, preprocess, progress)
    return ImageSource(catalog, preprocess, np.load(path, mmap_mode="r"))


def cache_folder() -> Path:
    """LENTIGO_CACHE, or the platform's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lentigo"
    return Path(os.environ.get("LENTIGO_CACHE", default))


def available_memory_bytes() -> int:
    """Memory that can be taken without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def _image_shape(preprocess: Preprocess) -> tuple[int, ...]:
    size = preprocess.resize_steps_px[0]
    return (size, size) if preprocess.color_mode == "gray" else (size, size, 3)


def _cache_key(catalog: Catalog, preprocess: Preprocess, count: int) -> str:
    first_step = preprocess.model_dump_json(include={"color_mode", "resize_rule", "interpolation"})
    digest = hashlib.sha256(f"{__version__} {first_step} {preprocess.resize_steps_px[0]} {count}".encode())
    for row in catalog.rows[:count]:
        # A missing file has no facts; decoding names it, with all the others.
        facts = row.path.stat() if row.path.is_file() else None
        size, changed_ns = (facts.st_size, facts.st_mtime_ns) if facts else (-1, -1)
        digest.update(f"{row.path.resolve()}\t{row.member}\t{size}\t{changed_ns}\n".encode())
    return digest.hexdigest()[:24]


def _build_file(
    path: Path,
    size: tuple[int, ...],
    catalog: Catalog,
    preprocess: Preprocess,
    progress: Callable[[int, int], None],
) -> None:
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".npy.part")
        os.close(descriptor)
        target = np.lib.format.open_memmap(name, mode="w+", dtype=np.uint8, shape=size)
        _read_all(target, catalog.rows, preprocess, progress)
        target.flush()
        os.replace(name, path)
    except OSError as error:
        raise DataError(
            f"cannot write the image cache {path}: {error}",
            "Free some space, set LENTIGO_CACHE to another folder, or pass --set data.cache=memory.",
        ) from None
    finally:
        if name:
            Path(name).unlink(missing_ok=True)


def _read_all(
    target: NDArray[np.uint8],
    rows: Sequence[Row],
    preprocess: Preprocess,
    progress: Callable[[int, int], None],
) -> None:
    """Decode the first rows into `target` (K, ...), and look at the headers of the others; `progress` counts to K."""
    problems: list[str] = []

    def read(index: int) -> None:
        row = rows[index]
        try:
            if index < len(target):
                target[index] = np.asarray(preprocess.first_step(load_image(row.path, row.member)))
            else:
                image_size(row.path, row.member)
        except DataError as error:
            problems.append(error.message)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(read, range(len(rows))), start=1):
            if done <= len(target):
                progress(done, len(target))
    if problems:
        raise DataError(
            f"{len(problems)} of {len(rows)} images cannot be read: {first_five(sorted(problems))}",
            "`lentigo data check` lists every problem of a data set.",
        )
