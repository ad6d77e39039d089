"""Look over a data set before training on it: every problem at once, each with its remedy."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import GROUPINGS, SPLITS, Catalog, Row, side, torn_groups
from lentigo.data.duplicates import DuplicatePair, near_duplicate_pairs
from lentigo.data.fingerprints import Fingerprint, fingerprint
from lentigo.data.sources import SourceProblem, scan_source

Severity = Literal["error", "warning", "note"]
FEW_LESIONS = 10
TINY_IMAGE_PX = 100
_SUFFIXES = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff",
    ".bmp": "bmp", ".gif": "gif", ".heic": "heic", ".heif": "heic", ".avif": "avif", ".dcm": "dicom",
}  # fmt: skip
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")
_SEVERITY: dict[str, Severity] = {
    "wrong-extension": "warning",
    "tiny-class": "warning",
    "tiny-image": "warning",
    "no-lesion-id": "warning",
    "no-primary": "note",
    "unused-column": "note",
    "grayscale-mixed": "note",
}
"""Kinds that are no errors; three kinds of duplicates decide case by case."""
_TEXTS = {
    "missing-file": ("rows name files that do not exist", "Restore them, or name their folder: --images."),
    "unknown-class": ("rows or folders have an unknown class", "Rename the class, or remove its images."),
    "duplicate-id": ("image ids are given more than once", "Give every image its own id."),
    "malformed-row": ("rows cannot be read", "Correct the rows."),
    "empty-id": ("rows have no image id", "Fill in the ids."),
    "unknown-split": ("rows or folders name an unknown split", f"Use {', '.join(SPLITS)}."),
    "outside-class-folder": (
        "image files lie beside the class folders",
        "Move them into the folder of their class, or away.",
    ),
    "no-primary": (
        "lesions had no image with primary = 1 in their split, so their first image is used",
        "Mark the image to judge where it should be another one.",
    ),
    "unused-column": ("columns are not used", "Rename those whose meaning Lentigo knows; the rest do no harm."),
    "zero-byte": ("files are empty (0 bytes)", "Copy or download them again."),
    "truncated": ("images are truncated or damaged", "Copy or download them again."),
    "not-an-image": ("files are not images", "Remove them, or convert them to JPEG or PNG."),
    "huge": ("images have too many pixels to be decoded", "Crop or shrink them."),
    "unreadable": ("files cannot be read", "Check their permissions, and the packages for their format."),
    "wrong-extension": ("files have an ending of another format", "Rename them; some programs refuse them."),
    "conflicting-labels": (
        "lesions have images of two classes",
        "Find out which diagnosis holds, and correct or remove the images.",
    ),
    "identical-bytes": (
        "files are copies of another image under another id",
        "Keep one of each; where their labels differ, find out which holds.",
    ),
    "lesion-across-splits": (
        "lesions have images in more than one of train, val and test",
        "Make a new split with `lentigo data split`.",
    ),
    "patient-across-splits": (
        "patients have images in more than one of train, val and test",
        "Make a new split with `lentigo data split`.",
    ),
    "group-across-splits": (
        "groups have images in more than one of train, val and test",
        "Make a new split with `lentigo data split`.",
    ),
    "near-duplicate-across-splits": (
        "pairs of images look like one lesion and lie in different splits",
        "Look at them; `lentigo data split` keeps such pairs together.",
    ),
    "near-duplicate": (
        "pairs of images look like one lesion and have different lesion ids",
        "Look at them; `lentigo data split` keeps such pairs together.",
    ),
    "tiny-class": (
        f"classes have fewer than {FEW_LESIONS} lesions",
        "Add lesions, or read the metrics of these classes as undefined or nearly so.",
    ),
    "no-lesion-id": (
        "images have no lesion id, so each counts as its own lesion",
        "Add lesion ids; otherwise photographs of one lesion can lie in two splits.",
    ),
    "synthetic-mixed": (
        "images are drawings, the others are not",
        "Keep drawings out of data sets of patients; no result of such a mixture means anything.",
    ),
    "tiny-image": (f"images have a side under {TINY_IMAGE_PX} px", "Use the originals where they exist."),
    "grayscale-mixed": (
        "images are grayscale, the others are coloured",
        "Train with color_mode = \"gray\", or make sure that gray is not tied to a class.",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem: how often, the first five examples, what it means and what to do."""

    kind: str
    severity: Severity
    count: int
    examples: tuple[str, ...]
    message: str
    remedy: str


@dataclass(frozen=True)
class CheckReport:
    """What `check_source` found; errors first. Counts are of usable rows, `pairs` of all duplicates."""

    source: str
    image_count: int
    lesion_count: int
    class_counts: dict[str, int]
    split_class_counts: dict[str, dict[str, int]]
    synthetic: bool
    findings: tuple[Finding, ...]
    pairs: tuple[DuplicatePair, ...]
    near_duplicates_searched: bool
    duration_s: float

    @property
    def has_errors(self) -> bool:
        """Whether anything was found that spoils training or its metrics."""
        return any(finding.severity == "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "has_errors": self.has_errors}


def check_source(
    source: Path,
    *,
    images: Path | None = None,
    near_duplicates: bool = True,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Read every row and image of a data set, and report all that is wrong with it.

    Problems of rows and images never raise.

    Raises:
        DataError: where the source as a whole cannot be read.
    """
    start = time.perf_counter()
    catalog, problems, notes = scan_source(source, images=images)
    prints = fingerprint(catalog.rows, threads=threads, progress=progress)
    searched = prints if near_duplicates else [_without_thumbnail(item) for item in prints]
    pairs = near_duplicate_pairs(searched, threads=threads)
    findings = [
        *_source_findings([*problems, *notes]),
        *_image_findings(catalog.rows, prints),
        *_label_findings(catalog),
        *_duplicate_findings(catalog, pairs),
    ]
    splits = [name for name in (*SPLITS, "") if any(row.split == name for row in catalog)]
    return CheckReport(
        source=str(source),
        image_count=len(catalog),
        lesion_count=len({row.lesion_id for row in catalog}),
        class_counts=_class_counts(catalog),
        synthetic=catalog.synthetic,
        split_class_counts={name or "none": _class_counts(catalog.split(name)) for name in splits},
        findings=tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity))),
        pairs=tuple(pairs),
        near_duplicates_searched=near_duplicates,
        duration_s=round(time.perf_counter() - start, 3),
    )


def _without_thumbnail(item: Fingerprint) -> Fingerprint:
    return Fingerprint(item.image_id, item.sha256)


def _class_counts(catalog: Catalog) -> dict[str, int]:
    return dict(zip(CLASS_CODES, catalog.class_counts.tolist(), strict=True))


def _findings(kind: str, examples: Iterable[str], severity: Severity | None = None) -> list[Finding]:
    """One finding of all examples, none where there are none."""
    found = list(examples)
    if not found:
        return []
    what, remedy = _TEXTS[kind]
    severity = severity or _SEVERITY.get(kind, "error")
    return [Finding(kind, severity, len(found), tuple(found[:5]), f"{len(found)} {what}", remedy)]


def _source_findings(problems: Sequence[SourceProblem]) -> list[Finding]:
    by_kind: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        by_kind[problem.kind].append(problem.detail)  # it names the culprit, and the nearest class
    return [finding for kind, details in by_kind.items() for finding in _findings(kind, details)]


def _image_findings(rows: Sequence[Row], prints: Sequence[Fingerprint]) -> list[Finding]:
    by_kind: dict[str, list[str]] = defaultdict(list)
    gray = []
    for row, item in zip(rows, prints, strict=True):
        expected = "" if row.member else _SUFFIXES.get(row.path.suffix.lower(), "")
        if item.problem:
            by_kind[item.problem].append(item.detail)
        if item.file_kind and expected and item.file_kind != expected:
            by_kind["wrong-extension"].append(f"{row.location} holds {item.file_kind.upper()}")
        if item.width and min(item.width, item.height) < TINY_IMAGE_PX:
            by_kind["tiny-image"].append(f"{row.image_id} ({item.width} x {item.height})")
        if item.grayscale:
            gray.append(row.image_id)
    if len(gray) < sum(not item.problem for item in prints):
        by_kind["grayscale-mixed"] = gray
    return [finding for kind, examples in by_kind.items() for finding in _findings(kind, examples)]


def _label_findings(catalog: Catalog) -> list[Finding]:
    labels_of: dict[str, set[int]] = defaultdict(set)
    for row in catalog:
        labels_of[row.lesion_id].add(row.label)
    drawn = [row.image_id for row in catalog if row.dx_type == "synthetic"]
    lesions = Counter(label for labels in labels_of.values() for label in labels)
    return [
        *_findings(
            "conflicting-labels",
            (
                f"{lesion} ({', '.join(CLASS_CODES[label] for label in sorted(labels))})"
                for lesion, labels in labels_of.items()
                if len(labels) > 1
            ),
        ),
        *_torn_findings(catalog),
        *_findings("synthetic-mixed", drawn if len(drawn) < len(catalog) else []),
        *_findings(
            "tiny-class",
            (f"{code} ({lesions[i]})" for i, code in enumerate(CLASS_CODES) if lesions[i] < FEW_LESIONS),
        ),
        *_findings("no-lesion-id", (row.image_id for row in catalog if not row.has_lesion_id)),
    ]


def _torn_findings(catalog: Catalog) -> Iterator[Finding]:
    """What `Catalog.check_disjoint` refuses."""
    for name, column in GROUPINGS:
        torn = torn_groups((getattr(row, column), row.split) for row in catalog)
        yield from _findings(f"{name.removesuffix('s')}-across-splits", torn)


def _duplicate_findings(catalog: Catalog, pairs: Sequence[DuplicatePair]) -> list[Finding]:
    row_of = {row.image_id: row for row in catalog}
    by_kind: dict[str, list[str]] = defaultdict(list)
    serious: set[str] = set()
    for pair in pairs:
        first, second = row_of[pair.first], row_of[pair.second]
        across = bool(first.split and second.split) and side(first.split) != side(second.split)
        labels_differ = first.label != second.label
        if pair.exact:
            kind = "identical-bytes"
        elif across:
            kind = "near-duplicate-across-splits"
        elif first.lesion_id != second.lesion_id:
            kind = "near-duplicate"
        else:
            continue
        if across or labels_differ:
            serious.add(kind)
        by_kind[kind].append(f"{_describe(first)} ~ {_describe(second)}, correlation {pair.correlation:.2f}")
    severity: dict[str, Severity] = {
        "identical-bytes": "error" if "identical-bytes" in serious else "warning",
        "near-duplicate-across-splits": "error",
        "near-duplicate": "warning" if "near-duplicate" in serious else "note",
    }
    return [finding for kind, found in by_kind.items() for finding in _findings(kind, found, severity[kind])]


def _describe(row: Row) -> str:
    return f"{row.image_id} ({CLASS_CODES[row.label]}{', ' + row.split if row.split else ''})"
