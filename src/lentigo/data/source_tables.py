"""Tables with images beside them: the HAM10000 CSV, the ISIC one-hot CSV, Lentigo's own catalogue."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import NUM_CLASSES, find_label
from lentigo.data.catalog import Catalog, Row, is_catalog_header, read_catalog_csv
from lentigo.data.csv_cells import known, parse_age, parse_csv, parse_flag, parse_number
from lentigo.data.images import IMAGE_SUFFIXES
from lentigo.data.source_rows import ImageFinder, RowCollector, bare_id

HAM = "HAM10000 table"
ISIC = "ISIC one-hot table"
CATALOG = "Lentigo catalogue"
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")

_HAM_REQUIRED = ("image_id", "lesion_id", "dx")
_ISIC_ID = "image"
_OPTIONAL = ("patient_id", "dx_type", "age", "sex", "localization", "primary", "split", "file")
"""Columns that both layouts may have."""
_OTHER_DIAGNOSES = ("unk", "scc")
"""ISIC columns that are diagnoses but none of the seven classes."""
_LESION_GROUPS = "*[Ll]esion[Gg]roupings.csv"


@dataclass(frozen=True)
class Table:
    """A CSV file: lower-case column names and (line number, cells) of every record that is not blank."""

    path: Path
    header: tuple[str, ...]
    records: tuple[tuple[int, list[str]], ...]

    @property
    def layout(self) -> str | None:
        """The layout that the header announces, or None."""
        if is_catalog_header(self.header):
            return CATALOG
        if set(self.header) >= set(_HAM_REQUIRED):
            return HAM
        labels = {find_label(name) for name in self.header} - {None}
        return ISIC if _ISIC_ID in self.header and len(labels) == NUM_CLASSES else None

    def rows(self, out: RowCollector) -> Iterator[tuple[str, dict[str, str]]]:
        """(place, cells by column) of every record; those of a wrong length become problems."""
        for line, cells in self.records:
            place = f"line {line}"
            if len(cells) == len(self.header):
                yield place, {name: cell.strip() for name, cell in zip(self.header, cells, strict=True)}
            else:
                detail = f"{place} has {len(cells)} cells; the header has {len(self.header)}"
                out.problem("malformed-row", place, detail)


def read_table(path: Path) -> Table:
    """Read a CSV file in UTF-8, with or without BOM, separated by commas, semicolons or tabs.

    Raises:
        DataError: where the file cannot be read, is empty, not UTF-8, not CSV, or names a column twice.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}", "Save the table as CSV in UTF-8.") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions.") from None
    return Table(path, *parse_csv(text, path))


def scan_table(table: Table, images: Path | None, out: RowCollector) -> Catalog:
    """Rows of a table of known layout; `images` is where the images lie if not beside the table."""
    finder = ImageFinder(images or table.path.parent, relocated=images is not None)
    if table.layout == CATALOG:
        return _scan_catalog(table.path, finder, out)
    if table.layout == ISIC:
        return _scan_isic(table, finder, out)
    return _scan_ham(table, finder, out)


def _scan_catalog(path: Path, finder: ImageFinder, out: RowCollector) -> Catalog:
    catalog = read_catalog_csv(path)
    for number, row in enumerate(catalog.rows, start=2):
        before = len(out.problems)
        out.take_id(row.image_id, f"line {number}")
        file = _find_file(row.image_id, str(row.path), finder, out)
        if file and len(out.problems) == before:
            out.rows.append(row if file == row.path else replace(row, path=file))
    return Catalog(tuple(out.rows), catalog.name, catalog.synthetic)


def _scan_ham(table: Table, finder: ImageFinder, out: RowCollector) -> Catalog:
    _note_unused(table, (*_HAM_REQUIRED, *_OPTIONAL), out)
    for place, cells in table.rows(out):
        _take_row(cells["image_id"], cells["dx"], known(cells["lesion_id"]), cells, place, finder, out)
    return out.catalog(table.path.stem, mark_primary="primary" not in table.header)


def _take_row(
    image_id: str,
    diagnosis: str,
    lesion_id: str,
    cells: dict[str, str],
    place: str,
    finder: ImageFinder,
    out: RowCollector,
) -> None:
    """One row of a table, `_OPTIONAL` columns from `cells`; or what is wrong with it."""
    before = len(out.problems)
    out.take_id(image_id, place)
    label = out.take_class(diagnosis, image_id or place)
    split = out.take_split(cells.get("split", ""), image_id or place)
    age_years = _take_age(cells.get("age", ""), place, out)
    primary = _take_primary(cells.get("primary"), place, out)
    file = _find_file(image_id, cells.get("file", ""), finder, out) if image_id else None
    if file is None or len(out.problems) > before:
        return
    out.rows.append(
        Row(
            image_id=image_id,
            path=file,
            label=label,
            lesion_id=lesion_id or image_id,
            has_lesion_id=bool(lesion_id),
            patient_id=known(cells.get("patient_id", "")),
            age_years=age_years,
            sex=known(cells.get("sex", "")).lower(),
            site=known(cells.get("localization", "")).lower(),
            dx_type=cells.get("dx_type", ""),
            primary=primary,
            split=split,
        )
    )


def _note_unused(table: Table, used: Iterable[str], out: RowCollector) -> None:
    """Columns that are not read; one that was meant to be may be misspelt."""
    absent = [name for name in used if name not in table.header]
    for name in table.header:
        if name not in used:
            near = difflib.get_close_matches(name, absent, n=1, cutoff=0.75)
            out.note(
                "unused-column", name, (name or "one without a name") + (f" (did you mean {near[0]}?)" if near else "")
            )


def _find_file(image_id: str, file: str, finder: ImageFinder, out: RowCollector) -> Path | None:
    found = finder.find(image_id, file)
    if found is None:
        wanted = file or (image_id if image_id.lower().endswith(IMAGE_SUFFIXES) else f"{image_id}.jpg")
        out.problem("missing-file", image_id, f"image {image_id!r}: no file {wanted} below {finder.root}")
    return found


def _take_age(text: str, place: str, out: RowCollector) -> float | None:
    try:
        return parse_age(text)
    except ValueError:
        out.problem("malformed-row", place, f"{place}: age {text!r} is not a number of years (0 to 120)")
        return None


def _take_primary(text: str | None, place: str, out: RowCollector) -> bool:
    if text is None:
        return True
    primary = parse_flag(text)
    if primary is None:
        out.problem("malformed-row", place, f"{place}: primary is {text!r}; expected 1 or 0")
    return primary is not False


def _scan_isic(table: Table, finder: ImageFinder, out: RowCollector) -> Catalog:
    columns = [name for name in table.header if find_label(name) is not None or name in _OTHER_DIAGNOSES]
    _note_unused(table, (_ISIC_ID, *columns, "lesion_id", *_OPTIONAL), out)
    groups = _read_lesion_groups(table.path.parent)
    for place, cells in table.rows(out):
        image_id = cells[_ISIC_ID]
        diagnosis = _one_hot({name: cells[name] for name in columns})
        if diagnosis is None:
            out.take_id(image_id, place)
            found = ",".join(cells[name] for name in columns)
            out.problem("malformed-row", place, f"{place}: expected one 1 and zeros; found {found}")
            continue
        lesion_id = known(cells.get("lesion_id", "")) or groups.get(bare_id(image_id), "")
        _take_row(image_id, diagnosis, lesion_id, cells, place, finder, out)
    return out.catalog(table.path.stem, mark_primary="primary" not in table.header)


def _one_hot(cells: dict[str, str]) -> str | None:
    """The only column with a one, or None where the others are not all zero."""
    try:
        values = {name: parse_number(cell) for name, cell in cells.items()}
    except ValueError:
        return None
    hot = [name for name, value in values.items() if value == 1.0]
    return hot[0] if len(hot) == 1 and all(value in (0.0, 1.0) for value in values.values()) else None


def _read_lesion_groups(folder: Path) -> dict[str, str]:
    """Lesion of each image from ISIC 2018's LesionGroupings CSV beside the ground truth, if it is there."""
    files = sorted(folder.glob(_LESION_GROUPS))
    return read_lesions(files[0], ("image",)) if files else {}


def read_lesions(path: Path, id_columns: tuple[str, ...]) -> dict[str, str]:
    """Image id -> lesion id from a small table; a file name stands for the id without folders and ending.

    Raises:
        DataError: where the table lacks a column or has malformed rows.
    """
    table = read_table(path)
    column = next((name for name in id_columns if name in table.header), None)
    if column is None or "lesion_id" not in table.header:
        raise DataError(
            f"{path}: expected the columns {' or '.join(id_columns)} and lesion_id; found {', '.join(table.header)}",
            "Name the columns so, or remove the file.",
        )
    out = RowCollector("lesion table")
    rows = [cells for _, cells in table.rows(out)]
    if out.problems:
        raise DataError(
            f"{path}: {len(out.problems)} malformed rows, the first: {out.problems[0].detail}",
            "Correct the rows.",
        )
    return {bare_id(cells[column]): known(cells["lesion_id"]) for cells in rows}
