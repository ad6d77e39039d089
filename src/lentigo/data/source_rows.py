"""What every layout of a data set shares: collecting rows and problems, finding files, reading cells."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lentigo.core.taxonomy import CLASS_CODES, find_label, suggest_class
from lentigo.data.catalog import SPLITS, Catalog, Row
from lentigo.data.csv_cells import known
from lentigo.data.folders import files_below
from lentigo.data.images import IMAGE_SUFFIXES

PROBLEM_KINDS = (
    "missing-file",
    "unknown-class",
    "duplicate-id",
    "malformed-row",
    "empty-id",
    "unknown-split",
    "outside-class-folder",
)

_SPLIT_ALIASES = {
    **{name: name for name in SPLITS},
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """One unusable row, file or folder. `kind` is one of `PROBLEM_KINDS`; `example` names the culprit."""

    kind: str
    example: str
    detail: str


@dataclass
class RowCollector:
    """Gathers the rows and problems of one source, so that all problems are told at once.

    `notes` spoil nothing and are for `lentigo data check` alone; their kinds are "unused-column" and "no-primary".
    """

    layout: str
    rows: list[Row] = field(default_factory=list)
    problems: list[SourceProblem] = field(default_factory=list)
    notes: list[SourceProblem] = field(default_factory=list)
    _first_place: dict[str, str] = field(default_factory=dict)

    def problem(self, kind: str, example: str, detail: str) -> None:
        """Note one problem."""
        self.problems.append(SourceProblem(kind, example, detail))

    def note(self, kind: str, example: str, detail: str) -> None:
        """Note what is worth knowing and no problem."""
        self.notes.append(SourceProblem(kind, example, detail))

    def take_id(self, image_id: str, place: str) -> None:
        """Claim an image id; `place` (a line, a file) says where it was found."""
        if not image_id:
            self.problem("empty-id", place, f"{place} has no image id")
        elif image_id in self._first_place:
            first = self._first_place[image_id]
            self.problem("duplicate-id", image_id, f"image id {image_id!r} in {first} and again in {place}")
        else:
            self._first_place[image_id] = place

    def take_class(self, name: str, place: str) -> int:
        """The label of a class name; -1, and a problem, where it is unknown."""
        label = find_label(name)
        if label is None:
            suggestion = suggest_class(name)
            hint = f"did you mean {suggestion!r}?" if suggestion else f"the classes are {', '.join(CLASS_CODES)}"
            self.problem("unknown-class", place, f"{place} has the class {name!r}; {hint}")
        return -1 if label is None else label

    def take_split(self, name: str, place: str) -> str:
        """The split a cell or folder names, empty for an empty name or, with a problem, an unknown one."""
        split = parse_split(name)
        if split is None:
            self.problem("unknown-split", place, f"{place} has the split {name!r}; the splits are {', '.join(SPLITS)}")
        return split or ""

    def catalog(self, name: str, *, mark_primary: bool) -> Catalog:
        """The good rows; `mark_primary` makes the first image of each lesion its primary one."""
        rows = _with_first_primary(self.rows) if mark_primary else self.rows
        synthetic = any(row.dx_type == "synthetic" for row in rows)
        return Catalog(tuple(rows), name, synthetic)


def _with_first_primary(rows: Iterable[Row]) -> list[Row]:
    seen: set[str] = set()
    marked: list[Row] = []
    for row in rows:
        marked.append(replace(row, primary=False) if row.lesion_id in seen else row)
        seen.add(row.lesion_id)
    return marked


class ImageFinder:
    """Finds image files by relative path or by id below one folder; every directory is listed once."""

    def __init__(self, root: Path, *, relocated: bool) -> None:
        """`relocated`: the user moved the images, so a wrong file name falls back to the id."""
        self.root = root
        self._relocated = relocated
        self._listings: dict[str, frozenset[str]] = {}
        self._by_name: dict[str, Path] | None = None

    def find(self, image_id: str, file: str = "") -> Path | None:
        """The file of an image: `file` where the source names one, else any image file called `image_id`.

        An id may be a file name: that file, or, where there is none, one of that name with another ending.
        """
        if file:
            # A table written on Windows has backslashes; no image data set has them in file names.
            path = os.path.join(self.root, file.replace("\\", "/"))
            folder, name = os.path.split(path)
            if name in self._listing(folder):
                return Path(path)
            if not self._relocated:
                return None
        if self._by_name is None:
            self._by_name = _index_by_name(self.root)
        return self._by_name.get(image_id) or self._by_name.get(bare_id(image_id))

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._listings:
            try:
                self._listings[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._listings[folder] = frozenset()
        return self._listings[folder]


def _index_by_name(root: Path) -> dict[str, Path]:
    """Name with and without its ending -> file below `root`. Of several, JPEG wins over masks in PNG, then the first.

    What is missing is told row by row, so folders that may not be read do not matter.
    """
    ranks: dict[str, tuple[int, str]] = {}
    for path in files_below(root, skip_unreadable=True):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            candidate = (IMAGE_SUFFIXES.index(path.suffix.lower()), str(path))
            for name in (path.stem, path.name):
                ranks[name] = min(candidate, ranks.get(name, candidate))
    return {name: Path(path) for name, (_, path) in ranks.items()}


def bare_id(name: str) -> str:
    """An image id without folders and without the ending of an image file, as tables often give it."""
    name = name.replace("\\", "/").rpartition("/")[2]
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def parse_split(name: str) -> str | None:
    """One of `SPLITS`, empty for an empty name, None for an unknown one."""
    name = known(name.strip().lower())
    return _SPLIT_ALIASES.get(name) if name else ""
