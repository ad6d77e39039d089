"""The one table of predictions: every metric, report, calibration and mining step reads it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import DataError, first_five
from lentigo.core.files import write_text_atomic
from lentigo.core.taxonomy import CLASS_CODES, NUM_CLASSES, find_label

_HEADER = ("image_id", "lesion_id", "label", *(f"logit_{code}" for code in CLASS_CODES))


@dataclass(frozen=True, slots=True)
class Predictions:
    """Logits of N images.

    image_id, lesion_id: N strings; label: (N,) int64 in 0..6; logits: (N, 7) float32, before softmax.
    """

    image_id: tuple[str, ...]
    lesion_id: tuple[str, ...]
    label: NDArray[np.int64]
    logits: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.image_id)
        if len(self.lesion_id) != count or self.label.shape != (count,) or self.logits.shape != (count, NUM_CLASSES):
            raise DataError(
                f"predictions of {count} images need {count} lesion ids, labels ({count},) and logits "
                f"({count}, {NUM_CLASSES}); found {len(self.lesion_id)}, {self.label.shape}, {self.logits.shape}",
                "Pass columns of equal length.",
            )
        bad = [self.image_id[i] for i in np.flatnonzero(~np.isfinite(self.logits).all(axis=1))]
        if bad:
            raise DataError(
                f"logits of {len(bad)} of {count} images are not finite: {first_five(bad)}",
                "The training diverged; lower the learning rate or train in float32.",
            )

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def probs(self) -> NDArray[np.float64]:
        """Softmax of the logits, (N, 7) float64, rows sum to 1."""
        return softmax(self.logits)

    def to_csv(self, path: Path) -> Path:
        """Write the table; nine significant digits bring every float32 back exactly."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(_HEADER)
        for image_id, lesion_id, label, logits in zip(
            self.image_id, self.lesion_id, self.label, self.logits, strict=True
        ):
            writer.writerow((image_id, lesion_id, CLASS_CODES[label], *(f"{value:.9g}" for value in logits)))
        return write_text_atomic(path, buffer.getvalue())

    @classmethod
    def from_csv(cls, path: Path) -> Predictions:
        """Read a table written by `to_csv`.

        Raises:
            DataError: where the file is missing or any row is wrong; all problems at once.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise DataError(
                f"no predictions at {path}", "Run `lentigo evaluate RUN --split val` to make them."
            ) from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not a UTF-8 text file: {error}", "Pass a predictions CSV.") from None
        rows = list(csv.reader(io.StringIO(text)))
        require_commas(path, rows[0] if rows else ())
        if not rows or tuple(rows[0]) != _HEADER:
            found = ",".join(rows[0]) if rows else "an empty file"
            raise DataError(
                f"{path}: expected the header {','.join(_HEADER)}; found {found}",
                "Pass a CSV written by `lentigo evaluate`.",
            )
        problems: list[str] = []
        labels: list[int] = []
        logits: list[list[float]] = []
        for number, row in enumerate(rows[1:], start=2):
            label = find_label(row[2]) if len(row) == len(_HEADER) else None
            try:
                values = [float(value) for value in row[3:]]
            except ValueError:
                values = []
            if label is None or len(values) != NUM_CLASSES:
                problems.append(f"line {number}")
                continue
            labels.append(label)
            logits.append(values)
        counts = Counter(row[0] for row in rows[1:] if row)
        duplicates = [image_id for image_id, count in counts.items() if count > 1]
        if problems or duplicates:
            parts = [f"malformed: {first_five(problems)}"] if problems else []
            parts += [f"image_id given twice: {first_five(duplicates)}"] if duplicates else []
            raise DataError(f"{path}: {'; '.join(parts)}", "Restore the file or run `lentigo evaluate` again.")
        try:
            return cls(
                tuple(row[0] for row in rows[1:]),
                tuple(row[1] for row in rows[1:]),
                np.asarray(labels, dtype=np.int64).reshape(-1),
                np.asarray(logits, dtype=np.float32).reshape(-1, NUM_CLASSES),
            )
        except DataError as error:
            raise DataError(f"{path}: {error.message}", error.remedy) from None


def require_commas(path: Path, header: Sequence[str]) -> None:
    """DataError where a table's header, read as comma-separated, is one cell with semicolons in it."""
    if len(header) == 1 and ";" in header[0]:
        raise DataError(
            f"{path}: expected columns separated by commas; found them separated by semicolons",
            "Save the table with commas.",
        )


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the last axis in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(shifted)
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result
