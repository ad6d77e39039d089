"""The catalogue: one row per image, whatever the data set looked like on disk."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import DataError, first_five
from lentigo.core.files import write_text_atomic
from lentigo.core.taxonomy import CLASS_CODES, NUM_CLASSES, find_label
from lentigo.data.csv_cells import parse_age, parse_csv, parse_flag

SPLITS = ("train", "val", "test", "extra")
GROUPINGS = (("lesions", "lesion_id"), ("patients", "patient_id"), ("groups", "group_id"))
"""What must not stand on two sides of a split, and its column."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image.

    `path` is the file; `member` names the image inside a container (an `.npz` array and index, a row of a
    Parquet pack) and is empty for plain files. `lesion_id` is never empty: a source without lesion ids gives
    every image its own and leaves `has_lesion_id` false. `group_id` names what a split kept together: lesions merged
    by near-duplicates or patient. `split` and `group_id` are empty until a split is made.
    """

    image_id: str
    path: Path
    label: int
    lesion_id: str
    member: str = ""
    has_lesion_id: bool = True
    patient_id: str = ""
    group_id: str = ""
    age_years: float | None = None
    sex: str = ""
    site: str = ""
    dx_type: str = ""
    primary: bool = True
    split: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0

    @property
    def location(self) -> str:
        """The file, and the member inside it, as messages print it."""
        return f"{self.path}#{self.member}" if self.member else str(self.path)


_COLUMNS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True)
class Catalog:
    """An immutable table of images. `synthetic` says that some are drawings, and every surface repeats it."""

    rows: tuple[Row, ...]
    name: str = "catalog"
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Labels (N,) int64 in 0..6."""
        return np.fromiter((row.label for row in self.rows), dtype=np.int64, count=len(self.rows))

    @cached_property
    def class_counts(self) -> NDArray[np.int64]:
        """Images per class, (7,) int64."""
        counts: NDArray[np.int64] = np.bincount(self.labels, minlength=NUM_CLASSES).astype(np.int64)
        return counts

    def filter(self, keep: Callable[[Row], bool]) -> Catalog:
        """The rows for which `keep` is true, in the same order."""
        return replace(self, rows=tuple(row for row in self.rows if keep(row)))

    def pick(self, wanted: NDArray[np.bool_]) -> Catalog:
        """The rows where `wanted` (N,) is true, in the same order."""
        return replace(self, rows=tuple(row for row, take in zip(self.rows, wanted, strict=True) if take))

    def split(self, *names: str) -> Catalog:
        """The rows of the named splits."""
        return self.filter(lambda row: row.split in names)

    def with_judged_images(self) -> Catalog:
        """The same rows, the first image of a lesion marked primary where its split holds none that is.

        Else the lesion would be neither trained nor judged. `extra` is left as it is: it is never judged, and
        HAM10000's own table leaves lesions there without a primary image.
        """
        judged = {(row.lesion_id, row.split) for row in self.rows if row.primary}
        rows = []
        for row in self.rows:
            place = row.lesion_id, row.split
            rows.append(row if place in judged or row.split == "extra" else replace(row, primary=True))
            judged.add(place)
        return replace(self, rows=tuple(rows))

    def check_disjoint(self) -> None:
        """Raise DataError where a lesion, patient or near-duplicate group has images in two of train, val and test.

        `extra` counts as training data. Every path into training and evaluation calls this.
        """
        for kind, column in GROUPINGS:
            torn = torn_groups((getattr(row, column), row.split) for row in self.rows)
            if torn:
                raise DataError(
                    f"{len(torn)} {kind} have images in more than one split: {first_five(torn)}",
                    "Make a lesion-disjoint split with `lentigo data split`.",
                )

    def to_csv(self, path: Path) -> Path:
        """Write every column; image paths are absolute."""
        return write_text_atomic(path, self.csv_text())

    def csv_text(self) -> str:
        """The table as CSV text with `\\n` line ends."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in self.rows:
            values = {name: getattr(row, name) for name in _COLUMNS}
            values["path"] = row.path.resolve()
            values["label"] = CLASS_CODES[row.label]
            values["age_years"] = "" if row.age_years is None else f"{row.age_years:g}"
            values["has_lesion_id"] = int(row.has_lesion_id)
            values["primary"] = int(row.primary)
            writer.writerow(values[name] for name in _COLUMNS)
        return buffer.getvalue()

    @property
    def sha256(self) -> str:
        """Digest over all that decides who is trained and judged; independent of where the files lie."""
        digest = hashlib.sha256()
        for row in self.rows:
            facts = (row.image_id, row.lesion_id, row.label, row.split, int(row.primary))
            digest.update("\t".join(map(str, facts)).encode() + b"\n")
        return digest.hexdigest()


def side(split: str) -> str:
    """The side of a split on which an image stands: `extra` is training data."""
    return "train" if split == "extra" else split


def torn_groups(members: Iterable[tuple[str, str]]) -> list[str]:
    """Groups with images on more than one side, as `name in test+train`; empty names and splits do not count."""
    sides: dict[str, set[str]] = defaultdict(set)
    for group, split in members:
        if group and split:
            sides[group].add(side(split))
    return sorted(f"{group} in {'+'.join(sorted(found))}" for group, found in sides.items() if len(found) > 1)


def is_catalog_header(header: Sequence[str]) -> bool:
    """Whether a CSV header is one that `Catalog.to_csv` wrote."""
    return tuple(header) == _COLUMNS


def read_catalog_csv(path: Path) -> Catalog:
    """Read a table written by `Catalog.to_csv`, or saved again by a spreadsheet.

    Raises:
        DataError: on a foreign header or malformed rows; all of them at once.
    """
    rows: list[Row] = []
    problems: list[str] = []
    header, records = parse_csv(path.read_bytes().decode("utf-8-sig"), path)
    if not is_catalog_header(header):
        raise DataError(
            f"{path}: expected the columns {','.join(_COLUMNS)}; found {','.join(header)}",
            "Pass a table written by `lentigo data split`.",
        )
    for line, cells in records:
        row = _parse_record(dict(zip(header, cells, strict=True))) if len(cells) == len(header) else None
        if row is None:
            problems.append(f"line {line}")
        else:
            rows.append(row)
    if problems:
        raise DataError(
            f"{path}: {len(problems)} malformed rows: {first_five(problems)}",
            "Write the table again with `lentigo data split`; has_lesion_id and primary are 1 or 0, "
            "age_years is 0 to 120 or empty.",
        )
    return Catalog(tuple(rows), path.stem, synthetic=any(row.dx_type == "synthetic" for row in rows))


def _parse_record(record: dict[str, str]) -> Row | None:
    label = find_label(record["label"])
    has_lesion_id, primary = parse_flag(record["has_lesion_id"]), parse_flag(record["primary"])
    try:
        age_years = parse_age(record["age_years"])
        width, height = int(record["width"]), int(record["height"])
    except ValueError:
        return None
    if label is None or has_lesion_id is None or primary is None:
        return None
    if record["split"] not in ("", *SPLITS) or not record["image_id"] or not record["lesion_id"]:
        return None
    return Row(
        image_id=record["image_id"],
        path=Path(record["path"]),
        label=label,
        lesion_id=record["lesion_id"],
        member=record["member"],
        has_lesion_id=has_lesion_id,
        patient_id=record["patient_id"],
        group_id=record["group_id"],
        age_years=age_years,
        sex=record["sex"],
        site=record["site"],
        dx_type=record["dx_type"],
        primary=primary,
        split=record["split"],
        sha256=record["sha256"],
        width=width,
        height=height,
    )
