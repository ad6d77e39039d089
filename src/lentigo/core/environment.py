"""What a run ran on: versions, machine, commit, command line."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from lentigo import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "lightning-fabric",
    "numpy",
    "pillow",
    "safetensors",
    "pyarrow",
    "scikit-learn",
    "matplotlib",
    "scipy",
    "captum",
    "pydantic",
    "typer",
    "timm",
)


def describe_environment() -> dict[str, Any]:
    """Facts for environment.json and `lentigo doctor`; nothing is imported to find them."""
    return {
        "lentigo": __version__,
        "commit": commit_of(Path(__file__).resolve().parents[3]),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: version for name in PACKAGES if (version := package_version(name))},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def package_version(name: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


_NOT_CODE = tuple(f":(exclude){folder}" for folder in ("docs", "results", "studies"))
"""Written while results come in; a result holds the settings of its study's row itself."""


def commit_of(root: Path) -> str:
    """The checkout's commit, with + where code has uncommitted changes; empty for an installed package."""
    if not (root / ".git").exists():
        return ""
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        dirty = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "-uno", "--", ".", *_NOT_CODE],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
