"""Many clients at once against `lentigo serve`: every answer checked, latency, memory, and throughput against the
Classifier alone in the same run.

Each client asks for one 600x450 JPEG after the other over a connection of its own and compares the whole answer with
that of the Classifier. The clients' own work comes off the same cores, so the shares are given twice: by the clock,
which the clients make smaller, and by the processor time that the service's process took for an image. `alone` is the
Classifier (decode, judge the picture, graph, decide) in as many threads, measured before and after; `batching` is the
graph by itself, image by image in parallel threads against batches on all cores. Prints JSON and, with --out,
writes it.

    python benchmarks/service_load.py runs/my-run --out results/benchmark-service.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from inference import make_images

from lentigo.core.environment import describe_environment
from lentigo.core.files import write_json_atomic
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.graph_session import usable_cores

IMAGES = 60
BATCH_SIZE = 8
SAMPLE_S = 0.5
WARM_UP_SHARE = 0.2
_BOUNDARY = "lentigo-load"


@dataclass(slots=True)
class Load:
    """What the clients saw."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    lost: int = 0


def request_bytes(host: str, name: str, content: bytes) -> bytes:
    """A whole HTTP request with one image."""
    body = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode()
        + content
        + f"\r\n--{_BOUNDARY}--\r\n".encode()
    )
    head = (
        f"POST /api/predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None, head
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length[1]))


async def client(
    number: int,
    address: tuple[str, int],
    requests: Sequence[bytes],
    expected: Sequence[Any],
    until_s: float,
    load: Load,
) -> None:
    """Ask until the time is over; a broken connection is a lost answer."""
    reader, writer = await asyncio.open_connection(*address)
    place = number
    while time.perf_counter() < until_s:
        place = (place + 1) % len(requests)
        start_s = time.perf_counter()
        try:
            writer.write(requests[place])
            status, body = await read_answer(reader)
        except (OSError, asyncio.IncompleteReadError):
            load.lost += 1
            reader, writer = await asyncio.open_connection(*address)
            continue
        load.latencies_s.append(time.perf_counter() - start_s)
        load.statuses[status] += 1
        load.wrong += status != 200 or json.loads(body) != [expected[place]]
    writer.close()


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_s(pid: int) -> float:
    """Processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run_clients(
    count: int, seconds: float, url: str, pid: int, files: Sequence[Path], expected: Sequence[Any]
) -> tuple[Load, list[float]]:
    """`count` clients for so long; what they saw, and the service's memory in MiB as time goes on."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    requests = [request_bytes(parts.netloc, file.name, file.read_bytes()) for file in files]
    load, memory, until_s = Load(), [], time.perf_counter() + seconds
    address = (parts.hostname, parts.port)
    working = asyncio.gather(*(client(i, address, requests, expected, until_s, load) for i in range(count)))
    while not working.done():
        memory.append(memory_mib(pid))
        await asyncio.sleep(SAMPLE_S)
    await working
    return load, memory


@contextmanager
def service(model: Path, threads: int) -> Iterator[tuple[str, int]]:
    """The address and process id of a started service."""
    command = [sys.executable, "-m", "lentigo", "serve", str(model), "--port", "0", "--threads", str(threads)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, stderr=said)
        try:
            while True:
                said.seek(0)
                found = re.search(r"Lentigo: (\S+)", said.read())
                if found:
                    break
                if process.poll() is not None:
                    said.seek(0)
                    raise SystemExit(said.read())
                time.sleep(0.05)
            yield found[1], process.pid
        finally:
            process.terminate()
            process.wait()


def rate_of(work: Callable[[int], object], threads: int, seconds: float) -> tuple[float, float]:
    """Calls a second of `work(number)` in so many threads, and processor milliseconds a call."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()

    def loop(thread: int) -> int:
        done = 0
        while time.perf_counter() - start_s < seconds:
            work(thread + threads * done)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(loop, range(threads)))
    taken_s = time.perf_counter() - start_s
    return total / taken_s, 1000 * (time.process_time() - start_cpu_s) / total


def measure_alone(classifier: Classifier, contents: Sequence[bytes], threads: int, seconds: float) -> dict[str, float]:
    """The Classifier without a service."""
    per_s, cpu_ms = rate_of(lambda i: classifier.predict(contents[i % len(contents)]), threads, seconds)
    return {"images_per_s": per_s, "cpu_ms_an_image": cpu_ms}


def measure_batching(model: Path, contents: Sequence[bytes], threads: int, seconds: float) -> dict[str, float]:
    """Images a second of the graph: single images in parallel threads, or batches that share the cores."""
    one, many = Classifier.load(model, threads=1), Classifier.load(model, threads=threads)
    squares = np.stack([one.prepare(content).pixels for content in contents[:BATCH_SIZE]])
    single, _ = rate_of(lambda i: one.logits(squares[i % BATCH_SIZE][None]), threads, seconds)
    batched, _ = rate_of(lambda _: many.logits(squares), 1, seconds)
    return {"single_images_per_s": single, f"batches_of_{BATCH_SIZE}_images_per_s": batched * BATCH_SIZE}


def expected_answers(classifier: Classifier, files: Sequence[Path]) -> list[Any]:
    """What the service must say to each file, as JSON gives it back."""
    answers = []
    for file in files:
        prepared = classifier.prepare(file)
        judged = classifier.judge(prepared.pixels[None])
        [prediction] = classifier.decide([file.name], judged.logits, [prepared.quality_flags], judged.distances)
        answers.append(json.loads(json.dumps(prediction.as_dict())))
    return answers


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an exported run or its export folder")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    classifier, beside_s = Classifier.load(arguments.model, threads=1), max(2.0, arguments.seconds / 6)
    with tempfile.TemporaryDirectory() as folder:
        files = make_images(Path(folder), IMAGES)
        contents = [file.read_bytes() for file in files]
        expected = expected_answers(classifier, files)
        alone = [measure_alone(classifier, contents, arguments.threads, beside_s)]
        with service(arguments.model, arguments.threads) as (url, pid):
            start_cpu_s, start_s, own_cpu_s = cpu_s(pid), time.perf_counter(), time.process_time()
            load, memory = asyncio.run(run_clients(arguments.clients, arguments.seconds, url, pid, files, expected))
            taken_s = time.perf_counter() - start_s
            service_cpu_ms = 1000 * (cpu_s(pid) - start_cpu_s) / max(1, len(load.latencies_s))
            client_cpu_ms = 1000 * (time.process_time() - own_cpu_s) / max(1, len(load.latencies_s))
        alone.append(measure_alone(classifier, contents, arguments.threads, beside_s))
        batching = measure_batching(arguments.model, contents, arguments.threads, beside_s / 2)
    latencies_ms = 1000 * np.asarray(load.latencies_s)
    rate, alone_rate = len(latencies_ms) / taken_s, statistics.mean(one["images_per_s"] for one in alone)
    alone_cpu_ms = statistics.mean(one["cpu_ms_an_image"] for one in alone)
    warm = memory[int(WARM_UP_SHARE * len(memory)) :]
    facts = describe_environment()
    result = {
        "model": classifier.spec.name,
        "architecture": classifier.spec.architecture,
        "machine": {name: facts[name] for name in ("cpu", "cores") if name in facts},
        "clients": arguments.clients,
        "seconds": taken_s,
        "threads": arguments.threads,
        "answers": len(latencies_ms),
        "wrong": load.wrong,
        "lost": load.lost,
        "statuses": {str(status): count for status, count in sorted(load.statuses.items())},
        "latency_ms": {f"p{q}": float(np.percentile(latencies_ms, q)) for q in (50, 90, 99, 100)},
        "memory_mib": {"after_warm_up": warm[0], "end": warm[-1], "highest": max(memory)},
        "images_per_s": rate,
        "alone": alone,
        "share_of_alone_by_the_clock": rate / alone_rate,
        "service_cpu_ms_an_image": service_cpu_ms,
        "clients_cpu_ms_an_image": client_cpu_ms,
        "share_of_alone_by_cpu": alone_cpu_ms / service_cpu_ms,
        "batching": batching,
    }
    print(json.dumps(result, indent=2))
    if arguments.out is not None:
        write_json_atomic(arguments.out, result)
    if load.wrong or load.lost:
        sys.exit(f"{load.wrong} wrong and {load.lost} lost answers")


if __name__ == "__main__":
    main()
