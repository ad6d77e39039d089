"""What `lentigo predict` is given -> the images to answer, known by name and number before one is decoded."""

from __future__ import annotations

import fnmatch
import glob
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lentigo.core.errors import ConfigError, DataError, LentigoError, first_five
from lentigo.data.containers import is_image_array, npz_headers
from lentigo.data.dicom import HEADER_BYTES, is_dicom
from lentigo.data.folders import files_below
from lentigo.data.images import IMAGE_SUFFIXES, count_frames, decode_bytes, load_image
from lentigo.deploy.archives import list_entries, read_entry
from lentigo.deploy.image_input import ImageInput

TABLE_SUFFIXES = (".csv", ".parquet")
CONTAINER_SUFFIXES = (".zip", ".npz", *TABLE_SUFFIXES)
FORMULA_STARTS = ("=", "+", "-", "@")
"""Spreadsheets take a cell that begins so for a formula."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_PATTERN = re.compile(r"[*?\[]")
_FRAME = "frame:"
_KNOWN = (
    "Pass image files, folders, a pattern in quotes, a .zip, a .parquet pack, an .npz of images, or the .csv of a "
    "catalogue."
)


@dataclass(frozen=True, slots=True)
class Item:
    """One image that can be read when its turn comes.

    `name`: what results and messages call it, one line of printable text: its path, and its place in a container
    behind a `#`; `image_id`: the name without folders and ending, or that of the catalogue; `entry`: its name in a zip
    archive; `member`: as `lentigo.data.images.load_image` names images inside other files.
    """

    name: str
    image_id: str
    path: Path
    entry: str = ""
    member: str = ""

    def read(self) -> ImageInput:
        """What `Classifier.prepare` takes: the path of a plain file, else bytes or a picture.

        Raises:
            DataError: where the container or the image in it cannot be read.
            MissingExtraError: a DICOM file or a pack without the package that reads it.
        """
        if self.entry:
            data = read_entry(self.path, self.entry)
            return decode_bytes(data, self.name, int(self.member.removeprefix(_FRAME))) if self.member else data
        return load_image(self.path, self.member) if self.member else self.path


def find_items(given: Sequence[str | Path]) -> tuple[Item, ...]:
    """The images of files, folders (with all below them), patterns, archives, packs and catalogues, each once.

    The order is that of the arguments, and by name within one. In folders, hidden files and those that do not end
    like images are passed over, unless their first bytes say DICOM; links are followed, and each folder is read once.
    Several frames of a DICOM file are an image each.

    Raises:
        ConfigError: for a web address.
        DataError: where a path does not exist (all of them are named), a container cannot be read, or nothing is
            found.
    """
    texts = [str(one) for one in given]
    addresses = [text for text in texts if _URL.match(text)]
    if addresses:
        raise ConfigError(f"expected paths; found web addresses: {first_five(addresses)}", "Download the images first.")
    matches = {text: list(_match(text)) for text in texts}
    missing = [text for text, paths in matches.items() if not paths]
    if missing:
        raise DataError(f"no file, folder or match at {first_five(missing)}", _KNOWN)
    found: dict[tuple[str, str, str, str], Item] = {}
    folders: dict[Path, str] = {}
    for path in (path for paths in matches.values() for path in paths):
        for item in _expand(path):
            # A folder is the same by whatever link; a link to a file has a name of its own, and stays.
            folder = folders.get(item.path.parent) or folders.setdefault(
                item.path.parent, os.path.realpath(item.path.parent)
            )
            found.setdefault((folder, item.path.name, item.entry, item.member), item)
    if not found:
        raise DataError(f"no images in {first_five(texts)}; images end in {', '.join(IMAGE_SUFFIXES)}", _KNOWN)
    return tuple(found.values())


def _match(text: str) -> Iterator[Path]:
    """The path itself, or what a pattern stands for, without files that are neither images nor containers of them."""
    if os.path.exists(text):
        yield Path(text)
    elif _PATTERN.search(text):
        found = _search_all(text) if "**" in text.split("/") else glob.glob(text)
        for path in map(Path, sorted(found)):
            if path.is_dir() or path.suffix.lower() in (*IMAGE_SUFFIXES, *CONTAINER_SUFFIXES):
                yield path


def _search_all(pattern: str) -> Iterator[str]:
    """What `glob` finds for a pattern with `**`, which never ends where links lead in a circle."""
    *parts, last = pattern.split("/")
    start = "/" if pattern.startswith("/") else ""
    return _search(start, (*filter(None, parts), last), set())


def _search(folder: str, parts: tuple[str, ...], seen: set[tuple[int, int, tuple[str, ...]]]) -> Iterator[str]:
    """What the `parts` of a pattern match below a folder; each folder once for the same rest of the pattern."""
    here = folder or "."
    try:
        facts = os.stat(here)
        names = sorted(os.listdir(here))
    except OSError:  # no folder, or one that may not be read: `glob` passes over it, too
        return
    place = (facts.st_dev, facts.st_ino, parts)
    if place in seen:
        return
    seen.add(place)
    first, *rest = parts
    if first == "**":
        if folder and not rest:
            yield os.path.join(folder, "")  # with a slash, as `glob` does: it decides about the order
        yield from _search(folder, tuple(rest) or ("*",), seen)
        for name in names:
            if not name.startswith("."):
                yield from _search(os.path.join(folder, name), parts, seen)
        return
    for name in _names_like(first, names):
        path = os.path.join(folder, name)
        if rest:
            yield from _search(path, tuple(rest), seen)
        elif os.path.lexists(path):
            yield path


def _names_like(part: str, names: list[str]) -> list[str]:
    """The names that one part of a pattern matches, hidden ones only where it begins so; a plain part is its name."""
    if not _PATTERN.search(part):
        return [part]
    return [name for name in fnmatch.filter(names, part) if part.startswith(".") or not name.startswith(".")]


def _expand(path: Path) -> Iterable[Item]:
    if path.is_dir():
        files = (file for file in files_below(path) if _is_image(file))
        return (item for file in files for item in _frames(file))
    if not path.is_file():
        raise DataError(f"{path} is no regular file", _KNOWN)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return _from_archive(path)
    if suffix == ".npz":
        return _from_arrays(path)
    return _from_table(path) if suffix in TABLE_SUFFIXES else _frames(path)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES or (not path.suffix and _says_dicom(path))


def _says_dicom(path: Path) -> bool:
    """DICOM files often have no ending."""
    try:
        with path.open("rb") as stream:
            return is_dicom(stream.read(HEADER_BYTES))
    except OSError:
        return False


def _frames(path: Path) -> Iterator[Item]:
    """The file, or each of its frames; one that cannot be counted is a single image, and fails when it is read."""
    count = 1
    if path.suffix.lower() in (".dcm", ""):
        try:
            with path.open("rb") as stream:
                count = count_frames(stream, str(path))
        except (OSError, LentigoError):
            count = 1
    for number in range(count):
        yield _item(path, path.stem, member=_FRAME + str(number) if count > 1 else "")


def _from_archive(path: Path) -> Iterator[Item]:
    for entry in list_entries(path):
        count = 1
        if entry.lower().endswith(".dcm"):
            try:
                count = count_frames(io.BytesIO(read_entry(path, entry)), entry)
            except LentigoError:
                count = 1
        for number in range(count):
            yield _item(path, Path(entry).stem, entry=entry, member=_FRAME + str(number) if count > 1 else "")


def _from_arrays(path: Path) -> Iterator[Item]:
    """Every array of images in an `.npz`, as MedMNIST's train_images; named as in catalogues."""
    for name, header in sorted(npz_headers(path).items()):
        if is_image_array(*header):
            for index in range(header[0][0]):
                yield _item(path, f"{name.removesuffix('_images')}_{index:06d}", member=f"{name}/{index}")


def _from_table(path: Path) -> Iterator[Item]:
    from lentigo.data.sources import load_catalog

    for row in load_catalog(path):
        yield _item(row.path, row.image_id, member=row.member)


def _item(path: Path, image_id: str, *, entry: str = "", member: str = "") -> Item:
    """`./` before a name that a spreadsheet would take for a formula: it still is the path."""
    if member.startswith(_FRAME):
        image_id = f"{image_id}_frame{member.removeprefix(_FRAME)}"
    name = "#".join(part for part in (str(path), entry, member) if part)
    name = f"./{name}" if name.startswith(FORMULA_STARTS) else name
    return Item(printable(name), printable(image_id), path, entry, member)


def printable(text: str) -> str:
    """The text in one line that any terminal, table and encoding can hold; other characters become escapes."""
    if text.isprintable():
        return text
    return "".join(ascii(letter)[1:-1] if _is_control(letter) else letter for letter in text)


def _is_control(letter: str) -> bool:
    """Control and format characters, halves of pairs (bytes of another encoding), and ends of lines."""
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
