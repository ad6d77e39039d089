"""`lentigo serve`: the page and the service on this machine, or the page as a folder."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from lentigo.cli import console
from lentigo.core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from lentigo.deploy.classifier import Classifier

TOKEN_VARIABLE = "LENTIGO_TOKEN"


def serve(
    model: Annotated[
        str | None, typer.Argument(help="An exported run or its export folder; default the shipped model.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than 127.0.0.1 open it to a network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN_VARIABLE, show_envvar=True, help="Secret that requests must carry; best by the environment."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Host name that browsers use for this machine; repeatable.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Images worked on at once, a thread each; default all cores.")
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of runs to show, with reports and suspects.")] = None,
    build_static: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the page with its model as a folder, and serve nothing.")
    ] = None,
) -> None:
    """Serve the page: drop an image, see an answer; nothing leaves this machine.

    `lentigo serve runs/my-run --open`

    `lentigo serve --runs runs`

    `lentigo serve runs/my-run --build-static site`
    """
    from lentigo.core.shipped import DEFAULT_MODEL
    from lentigo.deploy.classifier import find_model

    if build_static is not None:
        from lentigo.deploy.static_site import build_static as build

        folder = build(find_model(model or DEFAULT_MODEL), build_static)
        console.say(f"page: {folder}    try it: python -m http.server --directory {folder}")
        return

    from lentigo.deploy.server import is_local, listen, page_url, require_service, run_server

    require_service()
    from lentigo.deploy.limits import ServiceLimits
    from lentigo.deploy.service import create_app

    if token is None and TOKEN_VARIABLE in os.environ:  # an empty variable is taken for none by the parser
        raise ConfigError(
            f"{TOKEN_VARIABLE} is set but empty: expected a token there",
            "Unset it to serve without a token, or find out why it is empty.",
        )
    if runs is not None and not runs.is_dir():
        raise ConfigError(f"no folder of runs at {runs}", "Pass the folder that holds them, for example --runs runs.")
    found = _find(model, runs_alone=runs is not None)
    limits = ServiceLimits() if threads is None else ServiceLimits(workers=threads)
    listener = listen(host, port)
    try:
        app = create_app(
            None if found is None else _load(found),
            limits=limits,
            token=token,
            runs=runs,
            model_folder=found,
            hosts=(host, *(allow_host or ())),
        )
        url = page_url(listener) + (f"?token={quote(token, safe='')}" if token else "")
        if not is_local(listener):
            _warn(token)
        if found is not None:
            _warn_of_missing_runtime()
        console.say(f"Lentigo: {url}    Ctrl-C stops it. Research use only, not a diagnosis.")
        if open_page:
            _open(url)
        run_server(app, listener)
    finally:
        listener.close()
    console.say("stopped")


def _find(model: str | None, *, runs_alone: bool) -> Path | None:
    """The export to serve; None where no model is named, none is shipped, and there are runs to show."""
    from lentigo.core.shipped import DEFAULT_MODEL
    from lentigo.deploy.classifier import find_model

    try:
        return find_model(model or DEFAULT_MODEL)
    except CheckpointError:
        if model is None and runs_alone:
            return None
        raise


def _load(folder: Path) -> Classifier:
    """One thread a graph: the service works on several images at once instead."""
    from lentigo.deploy.classifier import Classifier

    return Classifier.load(folder, threads=1)


def _warn(token: str | None) -> None:
    secret = "" if token else f" Anybody there may use it: set a token with {TOKEN_VARIABLE}."
    console.say(
        f"WARNING: this service can be reached from other machines, and images travel unencrypted.{secret}\n"
        "WARNING: put a proxy with HTTPS before it, or use --host 127.0.0.1."
    )


def _warn_of_missing_runtime() -> None:
    from lentigo.deploy.static_site import RUNTIME_REMEDY, missing_runtime

    if missing := missing_runtime():
        console.say(
            f"WARNING: this installation lacks the browser's runtime ({', '.join(missing)}).\n"
            f"WARNING: the page can judge images on the server alone. {RUNTIME_REMEDY}"
        )


def _open(url: str) -> None:
    """In a thread: some browsers keep the caller until they are closed."""
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
