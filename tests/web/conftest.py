"""The page's modules called from Python under node, and the page itself in headless Chromium."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE = Path(__file__).parent
TESTS = HERE.parent


def load_module(path: Path) -> ModuleType:
    """A Python file beside the package, as a module."""
    specification = importlib.util.spec_from_file_location(f"beside_{path.parent.name}_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


_models = load_module(TESTS / "deploy" / "conftest.py")
tiny_model, tiny_gray_model = _models.tiny_model, _models.tiny_gray_model


@dataclass(frozen=True, slots=True)
class Node:
    """Calls functions of the page's modules."""

    program: str
    web: Path

    def call(self, module: str, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """Results of `[name, argument, ...]`; arrays go in by `array` and come back for `values`."""
        request = json.dumps({"file": (self.web / module).as_uri(), "calls": calls})
        command = [self.program, "--experimental-default-type=module", str(HERE / "run.mjs")]
        found = subprocess.run(command, input=request, capture_output=True, text=True, timeout=120, check=False)
        assert found.returncode == 0, found.stderr
        results: list[Any] = json.loads(found.stdout)
        return results

    @staticmethod
    def array(array: NDArray[Any]) -> dict[str, str]:
        """An array of uint8 or float32, flat in JavaScript."""
        kind = {"uint8": "Uint8Array", "float32": "Float32Array"}[array.dtype.name]
        return {"bytes": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode(), "kind": kind}

    @staticmethod
    def values(result: dict[str, str]) -> NDArray[Any]:
        """A typed array that came back, (N,)."""
        kind = np.float32 if result["kind"] == "Float32Array" else np.uint8
        return np.frombuffer(base64.b64decode(result["bytes"]), dtype=kind)

    @classmethod
    def image(cls, pixels: NDArray[np.uint8]) -> dict[str, Any]:
        """(H, W, 3) or (H, W) as the page's modules know an image."""
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        return {"data": cls.array(pixels), "width": pixels.shape[1], "height": pixels.shape[0], "channels": channels}


@pytest.fixture(scope="session")
def web(repository: Path) -> Path:
    """The page's folder."""
    return repository / "src" / "lentigo" / "deploy" / "web"


@pytest.fixture(scope="session")
def node(web: Path) -> Node:
    """Skips where there is no node."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("no node on this machine")
    return Node(program, web)


HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""What the service sends with every answer; `bare` sites go without, as on simple hosts."""


class StaticHandler(SimpleHTTPRequestHandler):
    """A folder over HTTP."""

    extensions_map: ClassVar[dict[str, str]] = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".webmanifest": "application/manifest+json",
    }
    bare = False

    def end_headers(self) -> None:
        if not self.bare:
            for name, value in HEADERS.items():
                self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


@dataclass(frozen=True, slots=True)
class Site:
    """A built page on a port of this machine; `stop` takes it off the network."""

    address: str
    model: Path
    server: ThreadingHTTPServer

    @classmethod
    def serve(cls, folder: Path, model: Path, *, bare: bool = False) -> Site:
        """Start it in a thread."""
        handler = partial(type("Handler", (StaticHandler,), {"bare": bare}), directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return cls(f"http://localhost:{server.server_address[1]}/", model, server)

    def stop(self) -> None:
        """Refuse all further connections."""
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="session")
def site_folder(tiny_model: Path, web: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static page with the tiny model; skips where the runtime was not fetched."""
    from lentigo.deploy.static_site import build_static

    if not (web / "vendor").is_dir():
        pytest.skip("no browser runtime in this checkout; run `make web`")
    return build_static(tiny_model, tmp_path_factory.mktemp("static") / "site")


@pytest.fixture(scope="session")
def site(site_folder: Path, tiny_model: Path) -> Iterator[Site]:
    """The static page on a port, with the service's headers."""
    found = Site.serve(site_folder, tiny_model)
    yield found
    found.stop()


CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless browser, closed before other modules start theirs; skips where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright in this environment")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site_type() -> type[Site]:
    """For tests that take their own site off the network."""
    return Site
