"""Answers -> CSV and JSON Lines, which grow row by row, so that a run that was cut off can be continued.

Each image is one line, written when its batch is done. What is in the file after a kill is true but for a torn last
line, which `read_done` takes away.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Literal

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.deploy.engine import Failure, Outcome
from lentigo.deploy.inputs import FORMULA_STARTS
from lentigo.deploy.outputs import NOTICE, Source, outcome_dict

RowFormat = Literal["csv", "jsonl"]

_SOURCE_COLUMNS = ("model", "variant", "views", "graph", "quality_checked")
COLUMNS = (
    *("name", "label", "confidence", *(f"p_{code}" for code in CLASS_CODES), "malignant_risk", "melanoma_risk"),
    *("conformal_set", "abstain", "quality_flags", "outlier", "error"),
    *_SOURCE_COLUMNS,
)
_REMEDY = "Write to another file, or delete this one and begin anew without --resume."
_YES_NO = {True: "yes", False: "no", None: ""}


def write_rows(
    outcomes: Iterable[Outcome], out: Path | None, source: Source, row_format: RowFormat, *, resume: bool = False
) -> None:
    """Append a line an outcome, after a header where a CSV is new; to stdout without `out`.

    Raises:
        FileExistsError: where there is such a file, without `resume`.
    """
    if out is None:
        _write(outcomes, sys.stdout, source, row_format, with_header=True)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    # Each line goes out on its own: a kill tears one at most.
    with out.open("a" if resume else "x", encoding="utf-8", newline="", buffering=1) as stream:
        _write(outcomes, stream, source, row_format, with_header=stream.tell() == 0)


def read_done(out: Path, source: Source, row_format: RowFormat) -> dict[str, bool]:
    """The images that a file of earlier rows has: name -> whether it has an answer.

    A torn last line is cut off a file that is one of ours.

    Raises:
        DataError: where the file holds something else, or answers of another model, variant, number of views, or
            with another setting of the quality check.
    """
    if not out.exists():
        return {}
    done: dict[str, bool] = {}
    expected, whole_bytes, torn = _source_values(source, row_format), 0, b""
    with out.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                torn = line
                break
            if number > 1 or row_format == "jsonl" or line != _line(COLUMNS).encode():
                name, answered, found = _read_row(line, row_format)
                if not name:
                    raise DataError(
                        f"{out}, line {number}: expected a row of `lentigo predict`; found another", _REMEDY
                    )
                if found != expected:
                    raise DataError(
                        f"{out}, line {number} was answered by {_text(found)}; this run has {_text(expected)}", _REMEDY
                    )
                done[name] = answered
            whole_bytes += len(line)
    start = _line(COLUMNS).encode() if row_format == "csv" else b'{"name": "'
    if torn and not whole_bytes and not (start.startswith(torn) or torn.startswith(start)):
        raise DataError(f"{out} was not written by `lentigo predict`", _REMEDY)
    if torn:
        os.truncate(out, whole_bytes)
    return done


def _write(
    outcomes: Iterable[Outcome], stream: IO[str], source: Source, row_format: RowFormat, *, with_header: bool
) -> None:
    to_line: Callable[[Outcome, Source], str] = _csv_row if row_format == "csv" else _json_row
    if with_header and row_format == "csv":
        stream.write(_line(COLUMNS))
    for outcome in outcomes:
        stream.write(to_line(outcome, source))


def _json_row(outcome: Outcome, source: Source) -> str:
    values = {**outcome_dict(outcome, source), "notice": NOTICE}
    return json.dumps(values, allow_nan=False, ensure_ascii=False) + "\n"


def _csv_row(outcome: Outcome, source: Source) -> str:
    """Six decimals; classes and flags with a space between."""
    answer = outcome.answer
    cells: dict[str, str] = dict.fromkeys(COLUMNS, "") | {"name": answer.name}
    cells |= dict(zip(_SOURCE_COLUMNS, _source_values(source, "csv"), strict=True))
    if isinstance(answer, Failure):
        cells["error"] = answer.error
    else:
        numbers = {f"p_{code}": value for code, value in answer.probs.items()}
        numbers |= {name: getattr(answer, name) for name in ("confidence", "malignant_risk", "melanoma_risk")}
        cells |= {name: f"{value:.6f}" for name, value in numbers.items()}
        cells |= {"label": answer.label, "abstain": _YES_NO[answer.abstain], "outlier": _YES_NO[answer.outlier]}
        cells |= {"conformal_set": " ".join(answer.conformal_set), "quality_flags": " ".join(answer.quality_flags)}
    return _line(cells.values())


def _line(cells: Iterable[str]) -> str:
    """A line of CSV; cells that a spreadsheet would take for a formula get an apostrophe."""
    buffer = io.StringIO()
    safe = (f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell for cell in cells)
    csv.writer(buffer, lineterminator="\n").writerow(safe)
    return buffer.getvalue()


def _source_values(source: Source, row_format: RowFormat) -> tuple[Any, ...]:
    values = tuple(asdict(source).values())
    return values if row_format == "jsonl" else (*map(str, values[:-1]), _YES_NO[source.quality_checked])


def _read_row(line: bytes, row_format: RowFormat) -> tuple[str, bool, tuple[Any, ...]]:
    """The name of a row, whether it has an answer, and its source; no name where it is no row."""
    try:
        if row_format == "csv":
            cells = next(csv.reader([line.decode()]), [])
            row: dict[str, Any] = dict(zip(COLUMNS, cells, strict=True))
        else:
            row = json.loads(line)
        return str(row["name"]), not row.get("error"), tuple(row[name] for name in _SOURCE_COLUMNS)
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error):
        return "", False, ()


def _text(values: tuple[Any, ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(_SOURCE_COLUMNS, values, strict=False))
