"""The page as a folder of plain files: any web server can serve it, and nothing runs there.

    build_static(Path("runs/my-run/export"), Path("site"))

Everything happens in the visitor's browser. The folder holds the page, the runtime for WebAssembly and the one variant
of the model that the page runs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from lentigo.core.errors import ConfigError
from lentigo.deploy.exported import ExportedModel

WEB = Path(__file__).parent / "web"
PAGE_FILES = (
    "app.js",
    "card.js",
    "decide.js",
    "decode.js",
    "engine.js",
    "export.js",
    "facts.js",
    "heatmap.js",
    "icon-maskable.svg",
    "icon.svg",
    "index.html",
    "manifest.webmanifest",
    "model.js",
    "preprocess.js",
    "quality.js",
    "service-worker.js",
    "style.css",
    "wording.js",
    "worker.js",
)
"""What the page consists of; the other files of its folder belong to the service."""
RUNTIME_FILES = ("LICENCE.txt", "ort-wasm-simd-threaded.wasm", "ort.wasm.bundle.min.mjs")
"""The runtime, in the folder `vendor` of the page; not in the repository, but in the wheel that `make wheel` builds."""
RUNTIME_REMEDY = (
    "Run `python tools/vendor_web.py` in the checkout (it needs npm); where Lentigo was installed from there without "
    "--editable, install it again after that."
)
MODEL_FOLDER = "model"


def missing_runtime() -> list[str]:
    """The files of the browser's runtime that this installation lacks; an installation from git begins without them."""
    return [file for file in RUNTIME_FILES if not (WEB / "vendor" / file).is_file()]


def build_static(model_folder: Path, out: Path) -> Path:
    """Write page, runtime and model to the folder `out`, which must be new or empty.

    Raises:
        ConfigError: where `out` has content, or this installation lacks the runtime.
        CheckpointError: where the model is missing or damaged.
    """
    spec = ExportedModel.load(model_folder)
    name = spec.default_variant  # chooseVariant in decide.js
    graph = spec.read_graph(model_folder, name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} already exists", "Choose a new folder, or empty it first.")
    missing = missing_runtime()
    if missing:
        raise ConfigError(
            f"this installation lacks the browser's runtime: expected {', '.join(missing)} in {WEB / 'vendor'}",
            RUNTIME_REMEDY,
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        site = Path(temporary) / "site"
        for file in (*PAGE_FILES, *(f"vendor/{file}" for file in RUNTIME_FILES)):
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(WEB / file, site / file)
        (site / MODEL_FOLDER).mkdir()
        (site / MODEL_FOLDER / spec.variants[name].file).write_bytes(graph)
        spec.model_copy(update={"variants": {name: spec.variants[name]}}).save(site / MODEL_FOLDER)
        if out.exists():
            out.rmdir()
        os.replace(site, out)
    return out
