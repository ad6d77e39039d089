"""Images that hard mining suspects of a wrong label, and what a reviewer decided about them.

Decisions go to `mining/review.csv` of the run. The data set itself is never changed.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from lentigo.core.errors import DataError
from lentigo.core.files import write_text_atomic
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES, find_label

Decision = Literal["accept", "relabel"]


@dataclass(frozen=True, slots=True)
class Suspect:
    """One row of mining/suspects.csv: codes of the given and the answered class; see `training.mining_table`.

    `agreement` is None where it was not measured.
    """

    image_id: str
    lesion_id: str
    label: str
    answered: str
    wrong_confidence: float
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Review:
    """One row of mining/review.csv. `new_label`: a class code, empty where the label was accepted; `time`: UTC."""

    image_id: str
    decision: Decision
    new_label: str
    time: str


def suspects_path(run: RunDir) -> Path:
    """Written with the report of a mined run."""
    return run.mining / "suspects.csv"


def review_path(run: RunDir) -> Path:
    """Written by the first decision."""
    return run.mining / "review.csv"


def read_suspects(run: RunDir) -> list[Suspect]:
    """The suspects, the surest first; empty for a run without.

    Raises:
        DataError: where the table is damaged.
    """
    suspects = []
    for row in _read_rows(suspects_path(run)):
        try:
            agreement = float(row["agreement"])
            suspects.append(
                Suspect(
                    image_id=row["image_id"],
                    lesion_id=row["lesion_id"],
                    label=_code(row["label"]),
                    answered=_code(row["answered"]),
                    wrong_confidence=float(row["wrong_confidence"]),
                    agreement=None if math.isnan(agreement) else agreement,
                )
            )
        except (KeyError, TypeError, ValueError):
            raise _damaged(suspects_path(run)) from None
    return suspects


def read_reviews(run: RunDir) -> dict[str, Review]:
    """The decision about each reviewed image, by its id.

    Raises:
        DataError: where the table is damaged.
    """
    reviews = {}
    for row in _read_rows(review_path(run)):
        try:
            review = Review(**{field.name: row[field.name] for field in fields(Review)})  # type: ignore[arg-type]
            if review.decision not in get_args(Decision) or (review.new_label and find_label(review.new_label) is None):
                raise ValueError(review.decision)
        except (KeyError, TypeError, ValueError):
            raise _damaged(review_path(run)) from None
        reviews[review.image_id] = review
    return reviews


def write_review(run: RunDir, image_id: str, decision: Decision, new_label: str) -> Review:
    """Add a decision, or replace the one about the same image; the caller sees to it that nobody else writes.

    Raises:
        DataError: for an image that is no suspect, a label that is missing, unknown or the one it has, or a damaged
            table.
    """
    labels = {suspect.image_id: suspect.label for suspect in read_suspects(run)}
    if image_id not in labels:
        raise DataError("the image is not among the run's suspects", "Load the page again.")
    if (decision == "relabel") != bool(new_label):
        raise DataError("expected a new label with `relabel`, and none with `accept`", "Choose one of the two.")
    if new_label and (new_label not in CLASS_CODES or new_label == labels[image_id]):
        raise DataError(
            f"expected another class than {labels[image_id]} of {', '.join(CLASS_CODES)}",
            "Accept the label, or choose another class.",
        )
    review = Review(image_id, decision, new_label, datetime.now(UTC).isoformat(timespec="seconds"))
    reviews = read_reviews(run) | {image_id: review}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(field.name for field in fields(Review))
    writer.writerows(astuple(one) for one in reviews.values())
    write_text_atomic(review_path(run), buffer.getvalue())
    return review


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error):
        raise _damaged(path) from None


def _code(text: str) -> str:
    label = find_label(text)
    if label is None:
        raise ValueError(text)
    return CLASS_CODES[label]


def _damaged(path: Path) -> DataError:
    """The file's name alone: the message is shown in the browser."""
    return DataError(f"{path.parent.name}/{path.name} is damaged", "Restore it, or move it away.")
