"""Tables in the format of ISIC 2018 Task 3: predictions, truth, and lesion groups.

The rules are those of the archive's own scorer (isic-challenge-scoring), with three differences, all stricter: a
row with too many fields is refused, not cut; the truth is checked as the predictions are, and must name one class
an image; and all problems of a file are told at once.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lentigo.core.errors import DataError, first_five
from lentigo.core.predictions import require_commas
from lentigo.core.taxonomy import ISIC_2018_COLUMNS, parse_label
from lentigo.evaluation.metrics import Floats, Labels

IMAGE = "image"
WEIGHT_COLUMNS = ("score_weight", "validation_weight")
"""May stand in a truth file; `score_weight` says what an image counts, the other one is not used."""
UNCOUNTED_IMAGES = frozenset({"ISIC_0035068"})
"""Weight 0 by the organisers' decision."""
_LABELS = [parse_label(column) for column in ISIC_2018_COLUMNS]
_HEADER_TEXT = ",".join((IMAGE, *ISIC_2018_COLUMNS))
_MISSING = frozenset({"", "na", "n/a", "nan", "-nan", "null", "none"})
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Truth:
    """image_id: N names; label: (N,) int64 in 0..6; weight: (N,) float64, what an image counts."""

    image_id: tuple[str, ...]
    label: Labels
    weight: Floats


@dataclass(slots=True)
class _Problems:
    """What is wrong with one file: kind -> the places."""

    path: Path
    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, places: Iterable[str]) -> None:
        for place in places:
            self.found.setdefault(kind, []).append(place)

    def raise_any(self, expected: str, remedy: str) -> None:
        if self.found:
            texts = [f"{len(places)} {kind}: {first_five(places)}" for kind, places in self.found.items()]
            raise DataError(f"{self.path}: expected {expected}; found {'; '.join(texts)}", remedy)


@dataclass(frozen=True, slots=True)
class _Table:
    """image_id: N names, without .jpg; texts: column -> N cells, as they stand."""

    image_id: list[str]
    texts: Mapping[str, list[str]]


def is_isic_table(path: Path) -> bool:
    """Whether a CSV has the columns of this format; DataError where it cannot be read."""
    header, _ = _read_rows(path)
    return set(header) >= {IMAGE, *ISIC_2018_COLUMNS}


def read_truth(path: Path) -> Truth:
    """The true class and weight of every image.

    Raises:
        DataError: where the file is missing or anything in it is wrong; all problems at once.
    """
    problems = _Problems(path)
    table = _read_table(path, problems, optional=WEIGHT_COLUMNS)
    values = np.stack([_numbers(table, name, problems) for name in ISIC_2018_COLUMNS], axis=1)
    known = np.isfinite(values).all(axis=1)
    one_class = (np.sort(values, axis=1) == [0.0] * 6 + [1.0]).all(axis=1)
    problems.add("images without one class of 1 and others of 0", _names(table, known & ~one_class))
    weight = _numbers(table, "score_weight", problems, highest=math.inf) if "score_weight" in table.texts else None
    problems.raise_any("one row an image with 1 for its class and 0 elsewhere", "Correct the truth file.")
    weight = np.ones(len(values)) if weight is None else weight
    weight[[name in UNCOUNTED_IMAGES for name in table.image_id]] = 0.0
    return Truth(tuple(table.image_id), np.asarray(_LABELS, dtype=np.int64)[values.argmax(axis=1)], weight)


def read_predictions(path: Path, image_id: Sequence[str]) -> Floats:
    """Probabilities (N, 7) in 0..1 of the images in `image_id`, classes in the order of the taxonomy.

    Columns and rows may be in any order; rows need not sum to 1; `.jpg` after a name is taken off. A column of
    whole numbers alone is refused: those are answers or ranks, not probabilities.

    Raises:
        DataError: where the file is missing or anything in it is wrong, or where images of the truth are missing or
            others are there; all problems at once.
    """
    problems = _Problems(path)
    table = _read_table(path, problems)
    probs = np.full((len(table.image_id), len(_LABELS)), np.nan)
    for label, name in zip(_LABELS, ISIC_2018_COLUMNS, strict=True):
        probs[:, label] = _numbers(table, name, problems)
        if table.texts[name] and all(_INTEGER.fullmatch(text) for text in table.texts[name]):
            problems.add("columns of whole numbers alone (write 1.0, not 1)", [name])
    expected, found = set(image_id), set(table.image_id)
    problems.add("images missing", sorted(expected - found))
    problems.add("images that the truth has not", sorted(found - expected))
    problems.raise_any(
        f"{_HEADER_TEXT} with one row for each of the truth's {len(image_id)} images and probabilities in 0..1",
        "Write the predictions again, or pass the truth that belongs to them.",
    )
    place = {name: row for row, name in enumerate(table.image_id)}
    return probs[[place[name] for name in image_id]]


def read_groups(path: Path, image_id: Sequence[str]) -> list[str]:
    """The lesion of each image in `image_id`, from a CSV with the columns image and lesion_id; others are ignored.

    Raises:
        DataError: where the file is missing, or an image has no lesion or several.
    """
    header, rows = _read_rows(path)
    columns = (IMAGE, "lesion_id")
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(
            f"{path}: expected the columns image and lesion_id; found no {' and no '.join(missing)}",
            "Name the columns so; others may stand beside them.",
        )
    places = [header.index(name) for name in columns]
    lesions: dict[str, set[str]] = {}
    for _, row in rows:
        if len(row) > max(places) and row[places[1]]:
            lesions.setdefault(_without_suffix(row[places[0]]), set()).add(row[places[1]])
    problems = _Problems(path)
    problems.add("images without a lesion", [name for name in image_id if name not in lesions])
    problems.add("images of several lesions", [name for name in image_id if len(lesions.get(name, ())) > 1])
    problems.raise_any("one lesion for each image of the truth", "Add or correct these rows.")
    return [next(iter(lesions[name])) for name in image_id]


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header, and (line number, cells) of every row that is not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""))
        rows = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError:
        raise DataError(f"expected a CSV file; found none at {path}", "Check the path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV file in UTF-8; found {error}", "Save it as CSV in UTF-8.") from None
    if not rows:
        raise DataError(f"{path}: expected a header; found an empty file", "Write the file again.")
    require_commas(path, rows[0][1])
    return rows[0][1], rows[1:]


def _read_table(path: Path, problems: _Problems, optional: Sequence[str] = ()) -> _Table:
    """The rows that fit the header; a header that does not fit raises at once, since no cell can be told."""
    header, rows = _read_rows(path)
    wanted = (IMAGE, *ISIC_2018_COLUMNS)
    problems.add("columns missing", [name for name in wanted if name not in header])
    problems.add("columns too many", [name for name in header if name not in (*wanted, *optional)])
    problems.add("columns given twice", [name for name, count in Counter(header).items() if count > 1])
    problems.raise_any(
        f"the columns {_HEADER_TEXT}",
        "Name the columns so, or pass a data set as the truth. A predictions table of `lentigo evaluate` is scored "
        "alone, without a truth.",
    )
    problems.add("rows without a cell for each column", [f"line {n}" for n, row in rows if len(row) != len(header)])
    whole = [row for _, row in rows if len(row) == len(header)]
    if not whole:
        problems.add("rows", ["none"])
    texts = {name: [row[i].strip() for row in whole] for i, name in enumerate(header)}
    image_id = [_without_suffix(name) for name in texts.pop(IMAGE)]
    problems.add("rows without an image", [f"row {row + 1}" for row, name in enumerate(image_id) if not name])
    problems.add("images given twice", [name for name, count in Counter(image_id).items() if count > 1])
    return _Table(image_id, texts)


def _numbers(table: _Table, column: str, problems: _Problems, highest: float = 1.0) -> Floats:
    """The column (N,) as numbers in 0..highest, nan where a cell is none."""
    texts = table.texts[column]
    missing = np.array([text.lower() in _MISSING for text in texts], dtype=np.bool_)
    number = np.array([_NUMBER.fullmatch(text) is not None for text in texts], dtype=np.bool_)
    values = np.array([float(text) if ok else np.nan for text, ok in zip(texts, number, strict=True)], dtype=np.float64)
    outside = number & ~((values >= 0.0) & (values <= highest) & np.isfinite(values))
    for kind, rows in {
        "values missing": missing,
        "values that are no number": ~number & ~missing,
        f"values outside 0..{highest:g}": outside,
    }.items():
        problems.add(kind, [f"{table.image_id[i]} {column} {texts[i]}".rstrip() for i in np.flatnonzero(rows)])
    return np.where(outside, np.nan, values)


def _names(table: _Table, rows: Iterable[bool]) -> list[str]:
    return [name for name, row in zip(table.image_id, rows, strict=True) if row]


def _without_suffix(name: str) -> str:
    return re.sub(r"\.jpg$", "", name, flags=re.IGNORECASE)
