"""`lentigo serve` as it is meant to be used: start, ask, stop; and what it says where it cannot."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs

import pytest

from lentigo.core.errors import ConfigError
from lentigo.deploy.server import is_local, listen, page_url

_place = Path(__file__).parents[1] / "deploy" / "conftest.py"
_specification = importlib.util.spec_from_file_location("models_for_serve", _place)
assert _specification is not None
assert _specification.loader is not None
_models = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(_models)
tiny_model = _models.tiny_model

Command = Callable[..., Any]
NOT_IN_THE_SERVICE = (
    "torch",
    "torchvision",
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
    "pyarrow",
    "safetensors",
    "onnx",
)
TOKEN = "a-token-of-some-length"


@contextmanager
def serving(
    *arguments: object, environment: dict[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address that a started service printed, and its process; training packages cannot be imported in it."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({NOT_IN_THE_SERVICE!r}))\n"
        "from lentigo.cli.app import main\n"
        f"sys.argv = ['lentigo', 'serve', '--port', '0', *{[str(one) for one in arguments]!r}]\n"
        "main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"Lentigo: (\S+)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield found[1], process
    finally:
        process.kill()
        process.communicate()


def ask(url: str, **headers: str) -> tuple[int, bytes]:
    """Status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_asked_to_end(tiny_model: Path, end: signal.Signals) -> None:
    with serving(tiny_model, "--threads", 1) as (url, process):
        status, body = ask(f"{url}api/health")
        assert (status, json.loads(body)["model"]) == (200, "tiny")
        assert ask(f"{url}model/model.json")[0] == 200
        assert ask(f"{url}runs")[0] == 404
        process.send_signal(end)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
    assert "GET /api/health 200" in said
    assert said.rstrip().endswith("stopped")
    assert "Traceback" not in said
    assert "WARNING: this service" not in said


def test_runs_are_shown_without_a_model_and_the_token_comes_from_the_environment(tmp_path: Path) -> None:
    secret = f"+/%25={TOKEN}"
    with serving("--runs", tmp_path, environment={"LENTIGO_TOKEN": secret}) as (url, process):
        page, _, token = url.partition("?token=")
        assert parse_qs(f"token={token}") == {"token": [secret]}
        assert ask(f"{page}api/runs")[0] == 401
        assert ask(f"{page}api/runs", Authorization=f"Bearer {secret}") == (200, b"[]")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert TOKEN not in said


def test_an_empty_token_is_not_taken_for_none(
    lentigo: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENTIGO_TOKEN", "")
    with mock.patch("lentigo.deploy.server.run_server") as run:
        said = lentigo("serve", "--runs", tmp_path, "--port", 0)
        given = lentigo("serve", "--runs", tmp_path, "--port", 0, "--token", TOKEN)
    assert (said.code, given.code, run.call_count) == (2, 0, 1)
    assert "LENTIGO_TOKEN is set but empty" in said.err


@pytest.mark.parametrize("missing", [(), ("ort.wasm.bundle.min.mjs",)])
def test_a_missing_runtime_is_warned_of(lentigo: Command, tiny_model: Path, missing: tuple[str, ...]) -> None:
    with (
        mock.patch("lentigo.deploy.server.run_server") as run,
        mock.patch("lentigo.deploy.static_site.missing_runtime", return_value=list(missing)),
    ):
        said = lentigo("serve", tiny_model, "--port", 0)
    assert (said.code, run.call_count) == (0, 1), "the page works on the server all the same"
    for text in ("python tools/vendor_web.py", *missing):
        assert (text in said.err) == bool(missing)


def test_a_taken_port_is_one_clear_error(lentigo: Command, tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = lentigo("serve", tiny_model, "--port", port)
    assert said.code == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in said.err
    assert "--port" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 3, "no model at lentigo"),
        (("nowhere",), 3, "no model at nowhere"),
        (("nowhere", "--runs", "."), 3, "no model at nowhere"),
        (("--runs", "nowhere"), 2, "no folder of runs"),
        (("--runs", ".", "--host", "no.such.host.invalid"), 2, "no address of this machine"),
        (("--runs", ".", "--token", "short", "--port", "0"), 2, "16 ASCII"),
        (("--port", "70000"), 2, "65535"),
        (("--threads", "0"), 2, "threads"),
    ],
)
def test_what_cannot_be_served(
    lentigo: Command, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    with mock.patch("lentigo.deploy.classifier.ASSETS", tmp_path):
        said = lentigo("serve", *arguments)
    assert said.code == code
    assert message in said.err
    assert "Traceback" not in said.err


def test_a_missing_package_names_the_extra(lentigo: Command, tmp_path: Path) -> None:
    with mock.patch("lentigo.deploy.server.find_spec", lambda name: None if name == "python_multipart" else name):
        said = lentigo("serve", "--runs", tmp_path)
    assert said.code == 2
    assert "python-multipart" in said.err
    assert "lentigo[serve]" in said.err


def test_other_machines_are_warned_of(lentigo: Command, tmp_path: Path) -> None:
    with mock.patch("lentigo.deploy.server.run_server") as run, mock.patch("webbrowser.open") as browser:
        said = lentigo("serve", "--runs", tmp_path, "--host", "0.0.0.0", "--port", 0, "--open")
        quiet = lentigo("serve", "--runs", tmp_path, "--host", "0.0.0.0", "--port", 0, "--token", TOKEN)
    assert (said.code, run.call_count, browser.call_count) == (0, 2, 1)
    assert said.err.count("WARNING") == 2
    assert "LENTIGO_TOKEN" in said.err
    assert "LENTIGO_TOKEN" not in quiet.err
    assert browser.call_args[0][0].startswith("http://localhost:")


def test_the_static_page_is_built_from_the_export(lentigo: Command, tiny_model: Path, tmp_path: Path) -> None:
    builder = mock.Mock(return_value=tmp_path / "site")
    with mock.patch.dict(sys.modules, {"lentigo.deploy.static_site": mock.Mock(build_static=builder)}):
        said = lentigo("serve", tiny_model.parent, "--build-static", tmp_path / "site")
    assert said.code == 0
    builder.assert_called_once_with(tiny_model, tmp_path / "site")
    assert str(tmp_path / "site") in said.err


def test_addresses() -> None:
    for host, url, local in (
        ("127.0.0.1", r"http://127\.0\.0\.1:\d+/", True),
        ("localhost", r"http://(127\.0\.0\.1|\[::1\]):\d+/", True),
        ("0.0.0.0", r"http://localhost:\d+/", False),
    ):
        with listen(host, 0) as listener:
            assert re.fullmatch(url, page_url(listener))
            assert is_local(listener) is local
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1"):
        listen("203.0.113.1", 0)
