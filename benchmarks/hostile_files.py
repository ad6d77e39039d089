"""What becomes of damaged and malicious image files: an image or an error, and at which cost?

Draws one lesion in every format that Lentigo reads, damages the files in seeded ways, adds files made to overwhelm
a decoder, and decodes each in a worker process. Wanted: no crash, no other exception, nothing over 5 s of CPU time or
1 GB of memory, and no file that was cut decodes to less than the picture without an error. Bits that flip within
compressed pixels often give another valid picture; no decoder can know, and such files are counted apart.

    python benchmarks/hostile_files.py --files 5200 --out results/benchmark-hostile-files.json
    python benchmarks/hostile_files.py --files 0 --largest      # the largest images that are accepted, too
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hostile_bombs import bombs
from hostile_mutations import NEVER_SILENT, HostileFile, dicom_files, mutated_files
from hostile_originals import PLANTED_NAME, large_files, originals
from recording import record

from lentigo.core.errors import DataError
from lentigo.data.images import load_image

MAX_CPU_S, MAX_MEMORY_MB = 5.0, 1000
_ADDRESS_SPACE_BYTES = 6 * 2**30
"""Keeps the machine alive; what a file takes is measured."""
_WALL_S = 60.0
"""Of a busy machine; then the worker counts as hanging."""
_STRIP_ROWS = 256
OUTCOMES = ("error", "same_picture", "other_picture", "silent_loss", "other_exception", "leaked_name", "hang", "crash")
_BAD = ("silent_loss", "other_exception", "leaked_name", "hang", "crash")


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one file gave. digest: of the pixels, empty for an error; error: the class or message of an exception."""

    outcome: str
    digest: str = ""
    error: str = ""
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    stderr_bytes: int = 0


def decode(path: Path) -> Decoded:
    """Decode one file in this process."""
    start = time.process_time()
    outcome, digest, error = "image", "", ""
    image = None
    try:
        image = load_image(path)
    except DataError as problem:
        outcome, error = "error", str(problem)
    except BaseException as problem:
        outcome, error = "other_exception", f"{type(problem).__name__}: {problem}"
    if PLANTED_NAME.split("^")[0] in error:
        outcome = "leaked_name"
    cpu_s, peak_mb = time.process_time() - start, _peak_mb()
    if image is not None:
        sha256 = hashlib.sha256(repr(image.size).encode())
        for top in range(0, image.height, _STRIP_ROWS):
            sha256.update(image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height))).tobytes())
        digest = sha256.hexdigest()
    return Decoded(outcome, digest, error, cpu_s, peak_mb)


def work(connection: Connection, folder: Path) -> None:
    """Decode every path that comes, until None comes."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES))
    noise = (folder / "stderr.txt").open("w+b")
    os.dup2(noise.fileno(), 2)
    while path := connection.recv():
        _forget_peak()
        written = os.fstat(2).st_size
        found = decode(path)
        sys.stderr.flush()
        connection.send(replace(found, stderr_bytes=os.fstat(2).st_size - written))


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # not on every system; then the peak is that of all files so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000 * 1.024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 * 1.024


class Worker:
    """A process that decodes, started anew where it died or hung."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self._folder), daemon=True)
        self._process.start()
        theirs.close()

    def decode(self, path: Path) -> Decoded:
        """What the file gave; crash or hang where the worker did not answer."""
        self._connection.send(path)
        try:
            if self._connection.poll(_WALL_S):
                found: Decoded = self._connection.recv()
                return found
            outcome = "hang"
        except EOFError:
            outcome = "crash"
        self._process.kill()
        self._process.join()
        self._start()
        return Decoded(outcome)

    def close(self) -> None:
        """End the process."""
        self._connection.send(None)
        self._process.join()


def judged(found: Decoded, file: HostileFile, whole: dict[str, str]) -> Decoded:
    """`found` with its outcome: an image is the same picture, another one, or less than the file pretends."""
    outcome = found.outcome
    if outcome == "image":
        silent = "silent_loss" if file.kind in NEVER_SILENT else "other_picture"
        outcome = "same_picture" if found.digest == whole.get(file.variant, found.digest) else silent
    if outcome in ("same_picture", "other_picture", "error") and found.cpu_s > MAX_CPU_S:
        outcome = "hang"
    return replace(found, outcome=outcome)


def decode_all(files: Iterable[HostileFile]) -> Iterator[tuple[HostileFile, Decoded]]:
    """Every file through the worker."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        worker = Worker(folder)
        whole = {}
        for variant, (suffix, data) in originals().items():
            path = folder / f"whole.{suffix}"
            path.write_bytes(data)
            whole[variant] = worker.decode(path).digest
        for file in files:
            path = folder / f"hostile.{file.suffix}"
            path.write_bytes(file.data)
            yield file, judged(worker.decode(path), file, whole)
            path.unlink()
        worker.close()


def measure(files: Iterable[HostileFile]) -> dict[str, Any]:
    """Counts by kind of damage and by format, the worst costs, and every bad file."""
    by_kind: dict[str, Counter[str]] = {}
    by_format: dict[str, Counter[str]] = {}
    worst_cpu_s = worst_mb = 0.0
    noisy, bad = Counter[str](), []
    other: dict[str, Counter[str]] = {}
    for file, found in decode_all(files):
        by_kind.setdefault(file.kind, Counter())[found.outcome] += 1
        by_format.setdefault("bomb" if file.kind == "bomb" else file.variant, Counter())[found.outcome] += 1
        worst_cpu_s, worst_mb = max(worst_cpu_s, found.cpu_s), max(worst_mb, found.peak_mb)
        if found.outcome == "other_picture":
            other.setdefault(file.kind, Counter())[file.variant] += 1
        noisy[file.variant] += found.stderr_bytes > 0
        if found.outcome in _BAD or found.peak_mb > MAX_MEMORY_MB:
            bad.append({"kind": file.kind, "format": file.variant, "outcome": found.outcome, "error": found.error,
                        "cpu_s": round(found.cpu_s, 2), "peak_mb": round(found.peak_mb)})  # fmt: skip
    total = sum(by_kind.values(), Counter())
    return {
        "files": total.total(),
        "outcomes": _counts(total),
        "bad_files": bad,
        "largest_cpu_s": round(worst_cpu_s, 2),
        "largest_memory_mb": round(worst_mb),
        "files_with_lines_of_a_decoder_on_stderr": {name: count for name, count in noisy.items() if count},
        "other_pictures_by_kind": {name: dict(counts.most_common()) for name, counts in sorted(other.items())},
        "by_kind": {name: _counts(counts) for name, counts in sorted(by_kind.items())},
        "by_format": {name: _counts(counts) for name, counts in sorted(by_format.items())},
    }


def _counts(counts: Counter[str]) -> dict[str, int]:
    return {"files": counts.total()} | {outcome: counts[outcome] for outcome in OUTCOMES}


def measure_largest() -> dict[str, dict[str, float | str]]:
    """Memory and CPU time of images of the largest accepted size, each in a process of its own."""
    found: dict[str, dict[str, float | str]] = {}
    for variant, suffix, data in large_files():
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / f"large.{suffix}"
            path.write_bytes(data)
            worker = Worker(Path(name))
            result = worker.decode(path)
            worker.close()
        found[variant] = {
            "outcome": result.outcome + (f": {result.error}" if result.error else ""),
            "cpu_s": round(result.cpu_s, 2),
            "memory_mb": round(result.peak_mb),
        }
    return found


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5200, help="damaged files; a fifth of them DICOM elements")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", action="store_true", help="also decode the largest images that are accepted")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    def files() -> Iterator[HostileFile]:
        elements = arguments.files // 8
        yield from mutated_files(arguments.files - elements, arguments.seed)
        yield from dicom_files(elements, arguments.seed)
        yield from bombs()

    result = {
        "benchmark": "hostile files",
        "seed": arguments.seed,
        **measure(files()),
        **({"largest_accepted": measure_largest()} if arguments.largest else {}),
    }
    record(result, arguments.out)


if __name__ == "__main__":
    main()
