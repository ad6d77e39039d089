"""The page's files, read once at the start: what a client asks for is looked up among them, never opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from lentigo.deploy.exported import MODEL_FILE, ExportedModel

WEB = Path(__file__).parent / "web"
RUN_PAGES = ("runs.html", "runs.js")
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
"""Kinds of files that are served; `mimetypes` would ask the system, and some have .js as plain text."""


@dataclass(frozen=True, slots=True)
class SiteFile:
    """One file in memory."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def make(cls, content: bytes, suffix: str) -> SiteFile:
        """A file of a kind in `MEDIA_TYPES`; the tag is of its content."""
        return cls(content, MEDIA_TYPES[suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')

    def response(self, request: Request) -> Response:
        """The file, or 304 where the client has this content. Clients ask each time, so that updates show at once."""
        headers = {"etag": self.etag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def read_site(folder: Path = WEB, *, with_runs: bool = False) -> dict[str, SiteFile]:
    """URL path -> file of every file below `folder` of a kind in `MEDIA_TYPES`; `/` is index.html.

    Hidden files and links are left out, and without `with_runs` the pages about runs are.
    """
    files = {
        f"/{path.relative_to(folder).as_posix()}": SiteFile.make(path.read_bytes(), path.suffix)
        for path in _site_paths(folder)
        if with_runs or path.name not in RUN_PAGES
    }
    for short, path in (("/", "/index.html"), ("/runs", "/runs.html")):
        if path in files:
            files[short] = files[path]
    return files


def read_model(folder: Path, spec: ExportedModel) -> dict[str, SiteFile]:
    """URL path -> model.json and every variant's graph, which the page runs in the browser.

    Raises:
        CheckpointError: where a graph is missing or not the one exported.
    """
    files = {f"/model/{MODEL_FILE}": SiteFile.make((folder / MODEL_FILE).read_bytes(), ".json")}
    for name, variant in spec.variants.items():
        files[f"/model/{Path(variant.file).name}"] = SiteFile.make(spec.read_graph(folder, name), ".onnx")
    return files


def _site_paths(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in MEDIA_TYPES and path.is_file() and not path.is_symlink() and not hidden:
            yield path
