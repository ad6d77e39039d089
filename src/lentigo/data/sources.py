"""Files on disk -> Catalog, whatever the layout: tables, class folders, MedMNIST arrays, packs.

`load_catalog` is for work and raises one error with all problems; `scan_source` is for `lentigo data check`
and returns them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lentigo.core.errors import ConfigError, DataError, first_five
from lentigo.core.taxonomy import NUM_CLASSES, find_label
from lentigo.data.catalog import Catalog, Row
from lentigo.data.containers import is_image_array, load_npz_array, npz_headers
from lentigo.data.folders import files_below
from lentigo.data.images import IMAGE_SUFFIXES
from lentigo.data.pack import read_pack
from lentigo.data.source_rows import PROBLEM_KINDS, RowCollector, SourceProblem, parse_split
from lentigo.data.source_tables import TABLE_SUFFIXES, read_lesions, read_table, scan_table

__all__ = ["PROBLEM_KINDS", "SourceProblem", "load_catalog", "scan_source"]

KNOWN_LAYOUTS = """\
  HAM10000 CSV: image_id, lesion_id, dx [, patient_id, dx_type, age, sex, localization, primary, split, file]
  ISIC one-hot CSV: image, MEL, NV, BCC, AKIEC, BKL, DF, VASC [, UNK, lesion_id, and the others of HAM10000]
  a catalogue CSV written by `lentigo data split`
  a folder with one subfolder per class (mel/, nv/, ...), or train/ val/ test/ with class folders in them
  a MedMNIST .npz (DermaMNIST); a .parquet pack written by `lentigo data pack`"""

_FOLDERS = "folder per class"
_MEDMNIST = "MedMNIST arrays"
_PACK = "Lentigo pack"
_LESION_TABLE = "lesions.csv"
_NOT_IMAGES = (".txt", ".csv", ".tsv", ".json", ".md", ".xml", ".html", ".pdf", ".db", ".ini", ".log", ".yml")
"""Usual companions of images. Any other file counts as an image, so that none is left out unnoticed."""

_REMEDIES = {
    "missing-file": "restore the files, or name their folder with --images",
    "unknown-class": "rename the class, or remove its images",
    "duplicate-id": "give every image its own id (file name without its ending)",
    "malformed-row": "correct the rows",
    "empty-id": "fill in the ids",
    "unknown-split": "use train, val, test or extra",
    "outside-class-folder": "move the images into class folders, or away",
}


def load_catalog(source: Path, *, images: Path | None = None) -> Catalog:
    """The catalogue of a data set; see `KNOWN_LAYOUTS`.

    `images` is the folder of a table's images where they are not beside it. DermaMNIST carries no lesion ids,
    and its official split has images of one lesion in train and test: its scores are too good.

    Raises:
        DataError: for an unreadable source, for any problem with its rows (all at once), and for a lesion in
            two splits.
    """
    source = Path(source)
    out, catalog = _scan(source, images)
    if out.problems:
        raise _summary(source, out)
    catalog.check_disjoint()
    return catalog


def scan_source(
    source: Path, *, images: Path | None = None
) -> tuple[Catalog, list[SourceProblem], list[SourceProblem]]:
    """The usable rows, all problems and all notes of a data set; lesions in two splits are not looked for.

    Raises:
        DataError: where the source as a whole cannot be read.
    """
    out, catalog = _scan(Path(source), images)
    return catalog, out.problems, out.notes


def _summary(source: Path, out: RowCollector) -> DataError:
    lines = [f"{source} ({out.layout}) has {len(out.problems)} problems:"]
    remedies = []
    for kind in PROBLEM_KINDS:
        found = [problem for problem in out.problems if problem.kind == kind]
        if found:
            lines.append(f"  {kind} ({len(found)}): {first_five([problem.example for problem in found])}")
            lines.append(f"    {found[0].detail}")
            remedies.append(f"{kind}: {_REMEDIES[kind]}")
    return DataError("\n".join(lines), "; ".join(remedies) + ". `lentigo data check` lists them all.")


def _scan(source: Path, images: Path | None) -> tuple[RowCollector, Catalog]:
    """The rows as the layout gives them, but for every lesion one judged image in its split."""
    out, given = _scan_layout(source, images)
    catalog = given.with_judged_images()
    for before, after in zip(given, catalog, strict=True):
        if after is not before:
            out.note("no-primary", after.lesion_id, f"{after.lesion_id} ({after.image_id})")
    return out, catalog


def _scan_layout(source: Path, images: Path | None) -> tuple[RowCollector, Catalog]:
    if images is not None and not images.is_dir():
        raise DataError(f"no folder of images at {images}", "Pass the folder that holds the image files.")
    if not source.exists():
        raise DataError(f"no data set at {source}", f"Pass one of:\n{KNOWN_LAYOUTS}")
    table = source if source.suffix.lower() in TABLE_SUFFIXES and source.is_file() else None
    if source.is_dir() and not _has_class_folders(source):
        table = _only_table(source)
    if table:
        return _scan_table_file(table, images)
    if images is not None:
        raise ConfigError(f"--images is for tables, and {source} is none", "Leave --images out.")
    if source.is_dir():
        return _scan_folders(source)
    if source.suffix.lower() == ".npz":
        return _scan_medmnist(source)
    if source.suffix.lower() == ".parquet":
        out = RowCollector(_PACK)
        return out, read_pack(source)
    raise DataError(f"{source} has no known layout (ending {source.suffix!r})", f"Pass one of:\n{KNOWN_LAYOUTS}")


def _scan_table_file(path: Path, images: Path | None) -> tuple[RowCollector, Catalog]:
    table = read_table(path)
    if table.layout is None:
        raise DataError(
            f"{path}: the header is of no known layout; found the columns {', '.join(table.header)}",
            f"Rename the columns to those of one of:\n{KNOWN_LAYOUTS}",
        )
    if not table.records:
        raise DataError(f"{path} ({table.layout}) has a header and no rows", "Download or write it again.")
    out = RowCollector(table.layout)
    return out, scan_table(table, images, out)


def _only_table(folder: Path) -> Path | None:
    """The one table of known layout in a folder without class folders; None where there are only folders."""
    tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in TABLE_SUFFIXES and path.is_file()]
    found = [path for path in tables if path.stat().st_size and read_table(path).layout]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{folder} holds {len(found)} tables: {first_five([path.name for path in found])}",
            "Pass one of them.",
        )
    if _subfolders(folder):
        return None
    names = sorted(path.name for path in folder.iterdir())
    raise DataError(
        f"{folder} has no class folders and no known table; found {first_five(names) or 'nothing'}",
        f"Pass one of:\n{KNOWN_LAYOUTS}",
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _has_class_folders(folder: Path) -> bool:
    return any(find_label(path.name) is not None or parse_split(path.name) for path in _subfolders(folder))


def _scan_folders(root: Path) -> tuple[RowCollector, Catalog]:
    """Class folders below `root`, or below its split folders; `lesions.csv` in `root` groups the images."""
    out = RowCollector(_FOLDERS)
    table = root / _LESION_TABLE
    lesions = read_lesions(table, ("image_id", "file")) if table.is_file() else {}
    folders = _subfolders(root)
    _report_loose_images(root, root, out)
    if any(parse_split(folder.name) for folder in folders):
        for folder in folders:
            split = out.take_split(folder.name, f"{folder.name}/")
            if split:
                _report_loose_images(root, folder, out)
            for class_folder in _subfolders(folder) if split else ():
                _scan_class_folder(root, class_folder, split, lesions, out)
    else:
        for class_folder in folders:
            _scan_class_folder(root, class_folder, "", lesions, out)
    if not out.rows and not out.problems:
        names = first_five([f"{folder.name}/" for folder in folders])
        raise DataError(f"{root} has no images in its folders {names}", "Put the images into class folders.")
    return out, out.catalog(root.resolve().name, mark_primary=True)


def _report_loose_images(root: Path, folder: Path, out: RowCollector) -> None:
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file():
            place = _printable(file.relative_to(root))
            out.problem("outside-class-folder", place, f"{place} lies beside the class folders, so it has no class")


def _scan_class_folder(root: Path, folder: Path, split: str, lesions: dict[str, str], out: RowCollector) -> None:
    label = out.take_class(folder.name, f"{folder.relative_to(root).as_posix()}/")
    if label < 0:
        return
    for file in _image_files(folder):
        before = len(out.problems)
        place = _printable(file.relative_to(root))
        if place != file.relative_to(root).as_posix():
            out.problem("malformed-row", place, f"the file name {place} is not UTF-8 text; rename the file")
            continue
        out.take_id(file.stem, place)
        if len(out.problems) == before:
            lesion_id = lesions.get(file.stem) or lesions.get(file.name, "")
            out.rows.append(
                Row(file.stem, file, label, lesion_id or file.stem, has_lesion_id=bool(lesion_id), split=split)
            )


def _image_files(folder: Path) -> Iterator[Path]:
    """Files below a class folder in a fixed order, without hidden ones and the usual companions."""
    return (path for path in files_below(folder) if path.suffix.lower() not in _NOT_IMAGES)


def _printable(path: Path) -> str:
    """The path as a table can hold it, with escapes where it is not UTF-8: such names hold surrogates."""
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        return ascii(name)
    return name


def _scan_medmnist(path: Path) -> tuple[RowCollector, Catalog]:
    """Arrays {train,val,test}_{images,labels} of DermaMNIST, whose labels are in the order of our classes."""
    headers = npz_headers(path)
    out = RowCollector(_MEDMNIST)
    wanted = [f"{split}_{kind}" for split in ("train", "val", "test") for kind in ("images", "labels")]
    missing = [name for name in wanted if name not in headers]
    if missing:
        raise DataError(
            f"{path} ({_MEDMNIST}) lacks the arrays {', '.join(missing)}; "
            f"it has {first_five(sorted(headers)) or 'none'}",
            "Pass dermamnist.npz or one of its larger sizes.",
        )
    for split in ("train", "val", "test"):
        shape, dtype = headers[f"{split}_images"]
        label_shape = headers[f"{split}_labels"][0]
        if not is_image_array(shape, dtype) or label_shape not in ((shape[0], 1), (shape[0],)):
            raise DataError(
                f"{path}: expected {split}_images uint8 (N, H, W, 3) or (N, H, W) and {split}_labels (N, 1); "
                f"found {dtype} {shape} and {label_shape}",
                "Pass dermamnist.npz or one of its larger sizes.",
            )
        for index, label in enumerate(_medmnist_labels(path, split)):
            image_id = f"{split}_{index:06d}"
            member = f"{split}_images/{index}"
            out.rows.append(
                Row(
                    image_id=image_id,
                    path=path,
                    member=member,
                    label=label,
                    lesion_id=image_id,
                    has_lesion_id=False,
                    split=split,
                    width=shape[2],
                    height=shape[1],
                )
            )
    if not out.rows:
        raise DataError(f"{path} ({_MEDMNIST}) has no images", "Pass dermamnist.npz or one of its larger sizes.")
    return out, out.catalog(path.stem, mark_primary=False)


def _medmnist_labels(path: Path, split: str) -> list[int]:
    labels = load_npz_array(path, f"{split}_labels").reshape(-1)
    if labels.dtype.kind not in "iu" or (labels.size and not 0 <= labels.min() <= labels.max() < NUM_CLASSES):
        raise DataError(
            f"{path}: expected whole labels of 0 to {NUM_CLASSES - 1} in {split}_labels; "
            f"found {labels.dtype} {first_five(sorted(set(np.unique(labels).tolist())))}",
            "Only DermaMNIST, of the MedMNIST sets, has these classes.",
        )
    return [int(label) for label in labels]
