"""Events on their way to the listener, kept in the run's log.txt."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from lentigo.core.run_dir import RunDir
from lentigo.training.events import Event, Listener, describe


class Recorder:
    """Passes events on and keeps what they say in the run's log.txt, from before the folder exists."""

    def __init__(self, listen: Listener, *, silent: bool) -> None:
        self._listen, self._silent = listen, silent
        self._waiting: list[str] = []
        self._file: Path | None = None

    def __call__(self, event: Event) -> None:
        """One event; processes other than the first say nothing."""
        if self._silent:
            return
        text = describe(event)
        if text is not None:
            self._waiting.append(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")
            self._flush()
        self._listen(event)

    def attach(self, run: RunDir) -> None:
        """Write to this run from now on, beginning with what was said before."""
        self._file = run.console
        self._flush()

    def _flush(self) -> None:
        if self._file is not None and not self._silent:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.writelines(self._waiting)
            self._waiting.clear()
