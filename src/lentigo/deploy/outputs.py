"""Answers -> the formats that need the whole run: JSON, Parquet, the archive's CSV. Each holds few rows in memory.

Files are written under another name and appear whole or not at all; `lentigo.deploy.row_files` writes those that grow
row by row and can be continued, `lentigo.deploy.html_page` the page, and `lentigo.cli.predict` the table.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from lentigo.core.errors import DataError, MissingExtraError, first_five
from lentigo.core.files import write_atomic
from lentigo.core.taxonomy import CLASS_CODES, ISIC_2018_COLUMNS, parse_label
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.engine import Failure, Outcome
from lentigo.deploy.inputs import FORMULA_STARTS, Item, printable
from lentigo.deploy.prediction import Prediction

NOTICE = "Research use only, not a diagnosis."
_ROWS_PER_GROUP = 2000


@dataclass(frozen=True, slots=True)
class Source:
    """Which model answered and how: stands in every row, so that rows of two models are never taken for one's.

    `graph`: the first twelve digits of the sha256 of the ONNX file.
    """

    model: str
    variant: str
    views: int
    graph: str
    quality_checked: bool

    @classmethod
    def of(cls, classifier: Classifier) -> Source:
        """That of a loaded classifier."""
        spec = classifier.spec
        digest = spec.variants[classifier.variant].sha256[:12]
        return cls(printable(spec.name), classifier.variant, classifier.views, digest, classifier.quality)


def outcome_dict(outcome: Outcome, source: Source) -> dict[str, Any]:
    """Plain values for JSON: those of `Prediction.as_dict`, or name, error and remedy; then the source."""
    answer = outcome.answer
    values = asdict(answer) if isinstance(answer, Failure) else answer.as_dict()
    return {"name": answer.name, "image_id": outcome.item.image_id, **values, **asdict(source)}


def write_json(outcomes: Iterable[Outcome], out: Path | None, source: Source, *, synthetic: bool) -> None:
    """One document, to stdout without `out`: notice, rows, counts."""
    head = {"notice": NOTICE, "synthetic": synthetic, **asdict(source)}

    def write(stream: IO[str]) -> None:
        stream.write(json.dumps(head, ensure_ascii=False, indent=2)[:-2] + ',\n  "predictions": [')
        counts = {"images": 0, "failed": 0}
        for outcome in outcomes:
            row = json.dumps(outcome_dict(outcome, source), allow_nan=False, ensure_ascii=False)
            stream.write(f"{',' if counts['images'] else ''}\n    {row}")
            counts["images"] += 1
            counts["failed"] += isinstance(outcome.answer, Failure)
        stream.write(f'\n  ],\n  "images": {counts["images"]},\n  "failed": {counts["failed"]}\n}}\n')

    _write_text(out, write)


def write_isic(outcomes: Iterable[Outcome], out: Path | None) -> None:
    """The columns of ISIC 2018 Task 3, which `lentigo score` reads: images with an answer alone, to stdout without
    `out`. See `check_isic_ids`, which is for before."""
    labels = [CLASS_CODES[parse_label(column)] for column in ISIC_2018_COLUMNS]

    def write(stream: IO[str]) -> None:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("image", *ISIC_2018_COLUMNS))
        for outcome in outcomes:
            if isinstance(outcome.answer, Prediction):
                probs = outcome.answer.probs
                writer.writerow((outcome.item.image_id, *(f"{probs[code]:.6f}" for code in labels)))

    _write_text(out, write)


def check_isic_ids(items: Sequence[Item]) -> None:
    """Raise DataError where images cannot be told apart by id, or an id would be a formula in a spreadsheet."""
    counts = Counter(item.image_id for item in items)
    doubled = [image_id for image_id, count in counts.items() if count > 1]
    if doubled:
        raise DataError(
            f"the isic format names images without folder and ending; {len(doubled)} ids stand for several images: "
            f"{first_five(doubled)}",
            "Rename the files, predict the folders one by one, or take --format csv.",
        )
    formulas = [image_id for image_id in counts if image_id.startswith(FORMULA_STARTS)]
    if formulas:
        raise DataError(
            f"{len(formulas)} ids begin like formulas of a spreadsheet: {first_five(formulas)}",
            "Rename the files, or take --format csv.",
        )


def write_parquet(outcomes: Iterable[Outcome], out: Path, source: Source, *, synthetic: bool) -> None:
    """A Parquet file with the columns of the CSV as numbers, lists and truth values; its metadata have the notice.

    Raises:
        MissingExtraError: without pyarrow.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "train") from None
    strings, texts = pa.list_(pa.string()), ("name", "image_id", "label")
    fields = [
        *((name, pa.string()) for name in texts),
        *((name, pa.float64()) for name in ("confidence", *(f"p_{code}" for code in CLASS_CODES))),
        *((name, pa.float64()) for name in ("malignant_risk", "melanoma_risk")),
        *((f"logit_{code}", pa.float32()) for code in CLASS_CODES),
        *(("conformal_set", strings), ("abstain", pa.bool_()), ("abstain_reasons", strings)),
        *(("quality_flags", strings), ("outlier", pa.bool_()), ("error", pa.string()), ("remedy", pa.string())),
        *(("model", pa.string()), ("variant", pa.string()), ("views", pa.int32()), ("graph", pa.string())),
        ("quality_checked", pa.bool_()),
    ]
    schema = pa.schema(fields, metadata={"notice": NOTICE, "synthetic": str(synthetic).lower()})

    def write(temporary: Path) -> None:
        with parquet.ParquetWriter(temporary, schema) as writer:
            rows = (_flat(outcome, source) for outcome in outcomes)
            while group := list(itertools.islice(rows, _ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))

    write_atomic(out, write)


def _flat(outcome: Outcome, source: Source) -> dict[str, Any]:
    """`outcome_dict` with a column a class; what is missing becomes null."""
    row = outcome_dict(outcome, source)
    row |= {f"p_{code}": value for code, value in row.pop("probs", {}).items()}
    row |= {f"logit_{code}": value for code, value in zip(CLASS_CODES, row.pop("logits", ()), strict=False)}
    row.pop("operating_points", None)
    return row


def _write_text(out: Path | None, write: Callable[[IO[str]], None]) -> None:
    """Call `write` on a temporary file whose text goes to stdout or takes the name `out` once all is written."""
    if out is None:
        with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as stream:
            write(stream)
            stream.seek(0)
            shutil.copyfileobj(stream, sys.stdout)
            sys.stdout.flush()
        return

    def write_file(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            write(stream)

    write_atomic(out, write_file)
