"""Options that several commands have, and the parsing of values that typer has no type for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from lentigo.core.errors import ConfigError

_UNITS_MIN = {"s": 1 / 60, "m": 1.0, "h": 60.0}

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Accelerator = Literal["auto", "cpu", "cuda", "mps"]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder that holds the runs.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key; repeatable.")
]


def parse_minutes(text: str) -> float:
    """`90s`, `30m`, `1h30m` or plain minutes as minutes."""
    plain = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        return float(plain)
    if not re.fullmatch(r"(\d+(\.\d+)?[smh])+", plain):
        raise ConfigError(f"a time takes the form 90s, 30m or 1h30m; found {text!r}", "For example --time-limit 30m")
    return sum(float(number) * _UNITS_MIN[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([smh])", plain))


def parse_fractions(text: str) -> dict[str, float]:
    """`train=0.7,val=0.15,test=0.15` as a dict; names and sums are checked where the split is made."""
    fractions: dict[str, float] = {}
    for part in text.split(","):
        name, separator, value = part.partition("=")
        try:
            fractions[name.strip()] = float(value)
        except ValueError:
            separator = ""
        if not separator:
            raise ConfigError(
                f"--fractions takes name=share pairs; found {part!r}",
                "For example train=0.7,val=0.15,test=0.15",
            )
    return fractions
