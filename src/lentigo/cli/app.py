"""The `lentigo` command: parse, build the configuration, call one function, print a table or JSON.

Heavy imports live inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from lentigo import __version__
from lentigo.cli import console
from lentigo.cli.about import doctor, runs, show_config
from lentigo.cli.compare import compare
from lentigo.cli.data import data_app
from lentigo.cli.demo import demo
from lentigo.cli.distill import distill
from lentigo.cli.ensemble import ensemble
from lentigo.cli.evaluate import evaluate, report
from lentigo.cli.explain import explain
from lentigo.cli.export import export
from lentigo.cli.leaderboard import leaderboard
from lentigo.cli.mine import mine
from lentigo.cli.predict import predict
from lentigo.cli.score import score
from lentigo.cli.serve import serve
from lentigo.cli.study import study
from lentigo.cli.train import train
from lentigo.core.errors import ConfigError, DataError, ExitCode, LentigoError

EPILOG = "Exit codes: 0 ok, 1 bug, 2 usage, 3 data, 4 a quality gate failed, 130 interrupted. Research use only."

app = typer.Typer(
    help="Small, honest skin-lesion classifiers. Research software, not a medical device.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _show_version(value: bool) -> None:
    if value:
        print(f"lentigo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.add_typer(data_app, name="data")
for command in (
    mine,
    study,
    train,
    distill,
    evaluate,
    report,
    compare,
    leaderboard,
    ensemble,
    explain,
    export,
    predict,
    score,
    serve,
    runs,
):
    app.command()(command)
app.command("config")(show_config)
app.command()(doctor)
app.command()(demo)


def _fail(error: LentigoError) -> NoReturn:
    """One message on stderr, the same as JSON on stdout where that was asked for, and the exit code."""
    console.say(f"error: {error}")
    if "--json" in sys.argv:
        with contextlib.suppress(OSError):  # stdout may be what the error is about
            console.print_json({"error": error.message, "remedy": error.remedy, "exit_code": int(error.exit_code)})
    sys.exit(error.exit_code)


def _prepare_streams() -> None:
    """Files and pipes get UTF-8 unless PYTHONIOENCODING says otherwise; what a stream cannot hold is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            chosen = stream.isatty() or "PYTHONIOENCODING" in os.environ
            stream.reconfigure(encoding=None if chosen else "utf-8", errors="backslashreplace")


def main() -> None:
    """Entry point: errors become one message on stderr and a documented exit code."""
    _prepare_streams()
    try:
        app(prog_name="lentigo")
    except LentigoError as error:
        _fail(error)
    except SystemExit as end:
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            console.say("interrupted")
            sys.exit(ExitCode.INTERRUPTED)
        # Typer answers a closed pipe (`lentigo runs | head`) with 1, which here means a bug.
        sys.exit(ExitCode.OK if isinstance(end.__context__, BrokenPipeError) else end.code)
    except OSError as error:
        name = error.filename2 or error.filename or "the output"  # a stream that is open has no name
        _fail(
            DataError(
                f"cannot read or write {name}: {error.strerror or error}",
                "Check the path, its permissions and the free space.",
            )
        )
    except Exception as error:
        if (
            isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        ):  # torch's, without importing it
            _fail(
                ConfigError(
                    f"out of memory: {str(error).partition('.')[0]}",
                    "Lower training.batch_size or data.cache_limit_mb; `lentigo train --dry-run` shows what is needed.",
                )
            )
        traceback.print_exc()
        console.say("This is a bug in Lentigo; please report it with the lines above.")
        sys.exit(ExitCode.BUG)
