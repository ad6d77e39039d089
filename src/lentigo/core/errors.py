"""The errors a user can cause. Each says what is wrong, what to do about it, and which exit code follows."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    GATE = 4
    INTERRUPTED = 130


_REMEDY = "\n  remedy: "


class LentigoError(Exception):
    """A problem with a known remedy; the command line prints it without a traceback.

    `message` says what was expected and what was found; `remedy` says what to do. Without a remedy `message` is a
    printed error to take both from: torch builds the error of a loader's worker process anew from its traceback alone.
    """

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, remedy: str | None = None) -> None:
        if remedy is None:
            message, remedy = self._parse(message)
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}{_REMEDY}{self.remedy}"

    @classmethod
    def _parse(cls, printed: str) -> tuple[str, str]:
        own = printed.rpartition(f"{cls.__module__}.{cls.__qualname__}: ")[2]
        message, _, remedy = own.partition(_REMEDY)
        return message.strip(), remedy.strip()


class Stopped(LentigoError):
    """Asked to stop in the middle of a task of several trainings; all is saved (exit 130)."""

    exit_code = ExitCode.INTERRUPTED


class ConfigError(LentigoError):
    """A wrong recipe, option or combination of options (exit 2)."""

    exit_code = ExitCode.USAGE


class MissingExtraError(LentigoError):
    """A command needs a package that is not installed (exit 2)."""

    exit_code = ExitCode.USAGE

    def __init__(self, package: str, extra: str | None = None) -> None:
        if extra is None:  # a printed error, as for every LentigoError
            super().__init__(package)
            return
        super().__init__(
            f"this needs the package {package}, which is not installed",
            f'pip install "lentigo[{extra}]"  (from a checkout: pip install ".[{extra}]")',
        )


class DataError(LentigoError):
    """Images, tables or splits that cannot be used as they are (exit 3)."""

    exit_code = ExitCode.DATA


class CheckpointError(LentigoError):
    """Weights or run folders that cannot be read or do not fit (exit 3)."""

    exit_code = ExitCode.DATA


class ExportError(LentigoError):
    """An exported model that fails its quality gate (exit 4)."""

    exit_code = ExitCode.GATE


def first_five(names: Sequence[object]) -> str:
    """The first five names and the count of the rest, for error messages."""
    shown = ", ".join(str(name) for name in names[:5])
    rest = len(names) - 5
    return f"{shown} and {rest} more" if rest > 0 else shown
