"""CSV text -> cells, and cells -> values, for every table that describes images."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from lentigo.core.errors import DataError

UNKNOWN = ("", "unknown", "nan", "na", "n/a", "none", "null")
"""What a cell says, in lower case, where the value is not known."""
_MAX_AGE_YEARS = 120.0
_FLAGS = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False}


def parse_csv(text: str, path: Path) -> tuple[tuple[str, ...], tuple[tuple[int, list[str]], ...]]:
    """Lower-case column names, and (line number, cells) of every record that is not blank.

    They are separated by commas, semicolons or tabs; `path` is what messages name.

    Raises:
        DataError: where the text is empty, not CSV, or names a column twice.
    """
    first_line = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)  # spreadsheets write semicolons where the comma is decimal
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        records = tuple((reader.line_num, cells) for cells in reader if any(cells))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a CSV table: {error}", "Save it as CSV.") from None
    if not records:
        raise DataError(f"{path} is empty; expected a table with a header", "Download or write the file again.")
    header = tuple(cell.strip().lower() for cell in records[0][1])
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise DataError(f"{path} has columns twice: {', '.join(twice)}", "Give every column its own name.")
    return header, records[1:]


def known(text: str) -> str:
    """The cell, empty where it says that the value is unknown."""
    return "" if text.lower() in UNKNOWN else text


def parse_number(text: str) -> float:
    """A number whose decimal sign is a point or, as spreadsheets of many countries write it, a comma.

    Raises:
        ValueError: where the text is no number.
    """
    return float(text.replace(",", "."))


def parse_age(text: str) -> float | None:
    """Age in years, None where it is unknown.

    Raises:
        ValueError: where the text is no number of 0..120.
    """
    if not known(text):
        return None
    age_years = parse_number(text)
    if not (math.isfinite(age_years) and 0 <= age_years <= _MAX_AGE_YEARS):
        raise ValueError(text)
    return age_years


def parse_flag(text: str) -> bool | None:
    """A yes or no as tables and spreadsheets write it (1, 1.0, true), None for anything else."""
    return _FLAGS.get(text.lower().replace(",", "."))
