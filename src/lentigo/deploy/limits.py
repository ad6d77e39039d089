"""What the service accepts and how much it takes on at once; what is beyond is refused with a status and a remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from lentigo.core.errors import ConfigError, ExitCode, LentigoError
from lentigo.deploy.graph_session import usable_cores

MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Limits of one service.

    `max_file_bytes`, `max_request_bytes`, `max_files`: of one request, checked while it arrives. `max_requests` is how
    many may be received, wait or be worked on at once, and `max_held_bytes` what their images may take together; more
    are told to come back after `retry_after_s`. `timeout_s`: from a request's first byte to its answer. `workers`:
    images that are worked on at once. Pixels are limited where images are decoded (`lentigo.data.images`).

    Raises:
        ConfigError: for limits below 1.
    """

    max_file_bytes: int = 32 * MEBIBYTE
    max_request_bytes: int = 128 * MEBIBYTE
    max_files: int = 32
    max_requests: int = 128
    max_held_bytes: int = 512 * MEBIBYTE
    timeout_s: float = 60.0
    retry_after_s: int = 2
    workers: int = field(default_factory=usable_cores)

    def __post_init__(self) -> None:
        wrong = [name for name in self.__slots__ if name != "timeout_s" and getattr(self, name) < 1]
        if self.timeout_s <= 0:
            wrong.append("timeout_s")
        if wrong:
            raise ConfigError(f"limits must be 1 or more; too low: {', '.join(wrong)}", "Raise them.")


class Refused(LentigoError):
    """A request that is not answered: `status` is the HTTP status, `headers` go with it."""

    exit_code = ExitCode.DATA

    def __init__(self, status: int, message: str, remedy: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, remedy)
        self.status = status
        self.headers = dict(headers or {})


@dataclass(slots=True)
class Place:
    """The right of one request to be received and worked on."""

    gate: Gate
    held_bytes: int = 0

    def hold(self, count: int) -> None:
        """Note that `count` more bytes of this request are in memory; Refused (503) where that is too much for all."""
        if self.gate.held_bytes + count > self.gate.limits.max_held_bytes:
            raise self.gate.refusal("the images of other requests fill the memory that is set aside for them")
        self.held_bytes += count
        self.gate.held_bytes += count


@dataclass(slots=True)
class Gate:
    """Counts the requests that are taken on. For one event loop; nothing here waits."""

    limits: ServiceLimits
    requests: int = 0
    held_bytes: int = 0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for as long as the block runs; Refused (503) where all are taken."""
        if self.requests >= self.limits.max_requests:
            raise self.refusal(f"{self.limits.max_requests} requests are being answered, which is the limit")
        self.requests += 1
        place = Place(self)
        try:
            yield place
        finally:
            self.requests -= 1
            self.held_bytes -= place.held_bytes

    def refusal(self, reason: str) -> Refused:
        """The 503 that tells a client when to come back."""
        wait_s = self.limits.retry_after_s
        return Refused(503, f"too busy: {reason}", f"Try again in {wait_s} s.", {"retry-after": str(wait_s)})
