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
    epochs: int
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


def describe(event: Event) -> str | None:
    """The line that a log or a pipe shows for an event; None for those that only move a progress bar."""
    if isinstance(event, Message):
        return event.text
    if not isinstance(event, EpochDone):
        return None
    row = event.row
    parts = [
        f"epoch {int(row['epoch'])}/{event.epochs}",
        f"train loss {row['train_loss']:.4f} acc {row['train_accuracy']:.3f}",
    ]
    if "val_loss" in row:
        parts.append(
            f"val loss {row['val_loss']:.4f} acc {row['val_accuracy']:.3f} "
            f"bal acc {row['val_balanced_accuracy']:.3f} F1 {row['val_macro_f1']:.3f}"
        )
    parts.append(f"{row['train_s'] + row['val_s']:.0f} s" + ("  *best" if event.best else ""))
    return " | ".join(parts)
