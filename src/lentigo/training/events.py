"""What a training tells its surroundings. The loop emits; the command line prints; tests listen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """A sentence worth a line."""

    text: str


@dataclass(frozen=True, slots=True)
class Decoding:
    """Images decoded into the cache."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """An optimiser step; `step` counts from 1 within the epoch."""

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class Validating:
    """Validation images done."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class EpochDone:
    """One row of log.csv; `best` says whether this epoch was chosen so far."""

    row: Mapping[str, float]
    epochs: int
    best: bool


Event = Message | Decoding | StepDone | Validating | EpochDone
Listener = Callable[[Event], None]
