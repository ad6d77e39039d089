"""How every benchmark ends: its result with the facts of the machine, printed, and written where --out says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lentigo.core.environment import describe_environment
from lentigo.core.files import write_text_atomic


def record(result: dict[str, Any], out: Path | None) -> None:
    """Print `result` with commit, versions and processor as JSON, and write that to `out`."""
    facts = describe_environment()
    kept = {name: facts[name] for name in ("commit", "python", "cpu", "cores", "packages")}
    text = json.dumps(result | kept, indent=2)
    print(text)
    if out is not None:
        write_text_atomic(out, text + "\n")
