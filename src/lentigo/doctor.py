"""What is installed and what the machine offers."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import NamedTuple

from lentigo.core.environment import describe_environment, package_version
from lentigo.core.errors import LentigoError, MissingExtraError

EXTRAS = {
    "train": (
        "torch",
        "torchvision",
        "lightning_fabric",
        "safetensors",
        "pyarrow",
        "matplotlib",
        "scipy",
        "captum",
        "psutil",
        "onnx",
        "onnxscript",
    ),
    "timm": ("timm",),
    "heic": ("pillow_heif",),
    "serve": ("fastapi", "uvicorn", "python_multipart"),
    "dicom": ("pydicom",),
}


class Check(NamedTuple):
    """One line of `lentigo doctor`."""

    check: str
    ok: bool
    found: str


def require_training() -> None:
    """Raise MissingExtraError where any package of the training tier is missing, before anything is done."""
    for module in EXTRAS["train"]:
        if find_spec(module) is None:
            raise MissingExtraError(module, "train")


def examine() -> list[Check]:
    """Versions, extras, device, memory, disk and threads. Only torch is imported, and only if it is there."""
    facts = describe_environment()
    checks = [
        Check("lentigo", True, f"{facts['lentigo']} on Python {facts['python']}, {facts['platform']}"),
        Check("cpu", True, f"{facts['cpu'] or 'unknown'}, {facts['cores']} cores"),
    ]
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        found = f'missing {", ".join(missing)}: pip install "lentigo[{extra}]"' if missing else "installed"
        checks.append(Check(f"extra [{extra}]", not missing, found))
    checks += [_shipped_model(), _browser_runtime()]
    if find_spec("torch"):
        import torch

        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; training runs on the CPU"
        checks.append(Check("torch", True, f"{package_version('torch')}, {torch.get_num_threads()} threads"))
        checks.append(Check("gpu", True, gpu))
    if find_spec("psutil"):
        from lentigo.data.cache import available_memory_bytes, cache_folder

        checks.append(Check("memory", True, f"{available_memory_bytes() / 2**30:.1f} GiB available"))
        checks.append(Check("cache folder", True, str(cache_folder())))
    checks.append(Check("disk", True, f"{shutil.disk_usage(os.getcwd()).free / 2**30:.1f} GiB free here"))
    return checks


def _shipped_model() -> Check:
    """Whether `lentigo predict` has a model where none is named, and its file is the one exported."""
    from lentigo.core.shipped import ASSETS, DEFAULT_MODEL
    from lentigo.deploy.exported import ExportedModel

    folder = ASSETS / DEFAULT_MODEL
    try:
        spec = ExportedModel.load(folder)
        spec.read_graph(folder, spec.default_variant)
    except LentigoError as error:
        return Check("shipped model", False, f"{error.message}; install Lentigo again")
    return Check("shipped model", True, f"{spec.name}, {', '.join(spec.variants)}")


def _browser_runtime() -> Check:
    """Whether the page of `lentigo serve` can judge images in the browser."""
    from lentigo.deploy.static_site import RUNTIME_REMEDY, missing_runtime

    missing = missing_runtime()
    found = f"missing {', '.join(missing)}: {RUNTIME_REMEDY}" if missing else "installed"
    return Check("browser runtime", not missing, found)
