"""What commands say: results on stdout, everything else on stderr; bars on a terminal, lines in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

    from lentigo.evaluation.evaluate import Judgement
    from lentigo.training.events import Listener


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """The result of a command for programs."""
    print(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False, default=str), flush=True)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """The result of a command for people; never cut off, wrapped at the terminal's width."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # `Text`, since rich reads plain strings as markup, and names of files and runs may hold brackets.
    heading = None if title is None else Text(title, style="table.title")
    table = Table(title=heading, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for header in headers:
        table.add_column(Text(header))
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def result(value: Mapping[str, Any], as_json: bool, lines: Callable[[], None]) -> None:
    """Print `value` as JSON, or call `lines` for people."""
    if as_json:
        print_json(value)
    else:
        lines()


@contextmanager
def training_listener() -> Iterator[Listener]:
    """A listener that draws one bar for the whole training on a terminal and prints one line an epoch elsewhere."""
    from lentigo.training.events import Decoding, EpochDone, StepDone, Validating, describe

    if not sys.stderr.isatty():

        def print_line(event: object) -> None:
            text = describe(event)  # type: ignore[arg-type]
            if text is not None:
                say(text)

        yield print_line
        return
    with _progress() as progress:
        decoding = progress.add_task("decoding", total=None, visible=False)
        training = progress.add_task("training", total=None, visible=False)
        validating = progress.add_task("validating", total=None, visible=False)

        score = ""

        def show(event: object) -> None:
            nonlocal score
            text = describe(event)  # type: ignore[arg-type]
            if text is not None:
                progress.console.print(text, markup=False, highlight=False)
            if isinstance(event, Decoding):
                progress.update(decoding, completed=event.done, total=event.total, visible=event.done < event.total)
            elif isinstance(event, StepDone):
                progress.update(
                    training,
                    description=f"epoch {event.epoch + 1}/{event.epochs} loss {event.loss:.3f}{score}",
                    completed=event.epoch * event.steps + event.step,
                    total=event.epochs * event.steps,
                    visible=True,
                )
            elif isinstance(event, Validating):
                progress.update(validating, completed=event.done, total=event.total, visible=event.done < event.total)
            elif isinstance(event, EpochDone):
                progress.update(validating, visible=False)
                if "val_balanced_accuracy" in event.row:
                    score = f" val bal acc {event.row['val_balanced_accuracy']:.3f}"

        yield show


@contextmanager
def counter(description: str) -> Iterator[Callable[[int, int], None]]:
    """A `progress(done, total)` callback: a bar on a terminal, silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with _progress() as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def cell(value: object) -> str:
    """A table cell: empty for None, four digits for floats."""
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def print_estimates(judgement: Judgement) -> None:
    """The overall scores with intervals and n."""
    rows = [
        (name.replace("_", " "), cell(e.value), f"{cell(e.ci_low)} to {cell(e.ci_high)}", e.n)
        for name, e in judgement.metrics.items()
    ]
    print_table(("metric", "value", "95% interval", "n"), rows, title=f"{judgement.split}: {judgement.interval}")
    if judgement.synthetic:
        say_synthetic()


def say_synthetic() -> None:
    """The notice that every result from drawn images carries."""
    from lentigo.data.synthetic import SYNTHETIC_NOTICE

    say(f"{SYNTHETIC_NOTICE} The numbers say nothing about real lesions.")


def require_training() -> None:
    """`lentigo.doctor.require_training`; that module is not loaded for `--help`."""
    from lentigo.doctor import require_training as require

    require()
