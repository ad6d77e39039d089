"""Where the models lie that come with the package, one folder each, and the start for trainings that it may hold."""

from __future__ import annotations

from pathlib import Path

DEFAULT_MODEL = "lentigo"
"""Name of the shipped model that is taken where none is named."""
ASSETS = Path(__file__).parents[1] / "deploy" / "assets"
START_FILE = "start.safetensors"
"""The checkpoint in half precision, from which trainings can begin."""


def shipped_start(name: str) -> Path | None:
    """The start of a shipped model's name; None for other names, paths among them."""
    path = ASSETS / name / START_FILE
    return path if name == Path(name).name and path.is_file() else None
