"""Counters of the service in Prometheus' text format; the format is a page long, so no package is needed.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lentigo.deploy.limits import Gate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ANSWERED_ROUTE = "/api/predict"


@dataclass(slots=True)
class ServiceMetrics:
    """Counts since the start. Written by one event loop; nothing in it tells of an image or its name."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    durations: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    duration_sum_s: float = 0.0

    def count_request(self, method: str, route: str, status: int, duration_s: float) -> None:
        """One answered request; `route` is the template of its path, so that clients cannot make up labels."""
        self.requests[method, route, status] += 1
        if route == _ANSWERED_ROUTE and method == "POST":
            self.durations[bisect_left(BUCKETS_S, duration_s)] += 1
            self.duration_sum_s += duration_s

    def count_answers(self, answers: Iterable[Mapping[str, Any]]) -> None:
        """The images of one request."""
        for answer in answers:
            if "error" in answer:
                self.images["refused"] += 1
            else:
                self.images["abstained" if answer["abstain"] else "answered"] += 1
                self.labels[answer["label"]] += 1

    def as_text(self, gate: Gate) -> str:
        """Everything in Prometheus' text format, with a newline at its end."""
        lines = [
            *_family("lentigo_requests_total", "counter", "Requests by method, route and status."),
            *(
                f'lentigo_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
                for (method, route, status), count in sorted(self.requests.items())
            ),
            *_family("lentigo_images_total", "counter", "Images: answered, abstained from, or refused as unreadable."),
            *(
                f'lentigo_images_total{{outcome="{name}"}} {self.images[name]}'
                for name in ("answered", "abstained", "refused")
            ),
            *_family("lentigo_labels_total", "counter", "Most probable class of the images that were judged."),
            *(f'lentigo_labels_total{{label="{code}"}} {count}' for code, count in sorted(self.labels.items())),
            *_family("lentigo_predict_seconds", "histogram", "From a request for predictions to its answer."),
            *self._histogram(),
            *_gauge("lentigo_requests_open", "Requests being received, waiting or worked on.", gate.requests),
            *_gauge("lentigo_requests_limit", "How many may be.", gate.limits.max_requests),
            *_gauge("lentigo_held_bytes", "Bytes of images that requests hold.", gate.held_bytes),
            *_gauge("lentigo_workers", "Images worked on at once.", gate.limits.workers),
        ]
        resident = resident_bytes()
        if resident is not None:
            lines += _gauge("process_resident_memory_bytes", "Resident memory.", resident)
        return "\n".join(lines) + "\n"

    def _histogram(self) -> Iterable[str]:
        total = 0
        for limit, count in zip((*map(str, BUCKETS_S), "+Inf"), self.durations, strict=True):
            total += count
            yield f'lentigo_predict_seconds_bucket{{le="{limit}"}} {total}'
        yield f"lentigo_predict_seconds_sum {self.duration_sum_s:.6f}"
        yield f"lentigo_predict_seconds_count {total}"


def resident_bytes() -> int | None:
    """Resident memory of this process; None on systems without /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _gauge(name: str, text: str, value: int) -> list[str]:
    return [*_family(name, "gauge", text), f"{name} {value}"]
