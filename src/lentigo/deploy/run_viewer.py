"""What the service shows of a folder of runs: states, scores, reports, and the suspects of hard mining.

A client names a run or an image by its name; both are looked up among what is there, and no name becomes a path.
"""

from __future__ import annotations

import io
import json
import threading
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from lentigo.core.errors import DataError, LentigoError
from lentigo.core.run_dir import RunDir, list_runs
from lentigo.data.catalog import Row, read_catalog_csv
from lentigo.data.images import load_image
from lentigo.deploy.suspect_review import (
    Decision,
    Review,
    read_reviews,
    read_suspects,
    review_path,
    suspects_path,
    write_review,
)
from lentigo.evaluation.evaluate import Judgement

SHOWN_METRICS = ("balanced_accuracy", "accuracy", "macro_auc", "macro_f1")
PICTURE_PX = 480
_STATUS_FACTS = ("state", "epoch", "epochs", "best_epoch", "best_score", "synthetic", "message")


@dataclass(frozen=True, slots=True)
class RunViewer:
    """The runs below `root`, read anew for every request. Safe in threads."""

    root: Path
    lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, name: str) -> RunDir:
        """The run of this name.

        Raises:
            DataError: where there is none.
        """
        found = {run.path.name: run for run in list_runs(self.root)}.get(name)
        if found is None:
            raise DataError("there is no run of this name", "Load the list of runs again.")
        return found

    def overview(self) -> list[dict[str, Any]]:
        """Facts of every run, the newest last: state, scores by split with n and interval, report, suspects."""
        return [describe_run(run) for run in list_runs(self.root)]

    def report(self, name: str) -> bytes:
        """The run's report.html.

        Raises:
            DataError: where there is no such run or it has none.
        """
        try:
            return self.find(name).report.read_bytes()
        except OSError:
            raise DataError("this run has no report", "Write it with `lentigo evaluate RUN`.") from None

    def suspects(self, name: str) -> list[dict[str, Any]]:
        """The run's suspects, the surest first, each with its place `number` and its `review` or None.

        Raises:
            DataError: where there is no such run, or a table of it is damaged.
        """
        run = self.find(name)
        reviews = read_reviews(run)
        return [
            {
                "number": number,
                **asdict(suspect),
                "review": asdict(reviews[suspect.image_id]) if suspect.image_id in reviews else None,
            }
            for number, suspect in enumerate(read_suspects(run))
        ]

    def picture(self, name: str, number: int) -> bytes:
        """The suspect at a place, as a JPEG of at most `PICTURE_PX`.

        Raises:
            DataError: where there is no such run or suspect, or its image cannot be read any more.
        """
        run = self.find(name)
        suspects = read_suspects(run)
        if not 0 <= number < len(suspects):
            raise DataError("there is no such suspect", "Load the page again.")
        try:
            row = _rows(run.catalog, run.catalog.stat().st_mtime_ns)[suspects[number].image_id]
            image = load_image(row.path, row.member)
        except (LentigoError, OSError, KeyError, ValueError):
            raise DataError("the image cannot be read any more", "Put it back to where it was at training.") from None
        image.thumbnail((PICTURE_PX, PICTURE_PX))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()

    def review(self, name: str, image_id: str, decision: Decision, new_label: str) -> Review:
        """Write a decision; see `suspect_review.write_review`."""
        run = self.find(name)
        with self.lock:
            return write_review(run, image_id, decision, new_label)


def describe_run(run: RunDir) -> dict[str, Any]:
    """Plain facts; what is damaged or unreadable is named in `problems`, so that a bad run does not hide the others."""
    status: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    problems = []
    try:
        status = run.read_status()
    except OSError:
        problems.append(f"{run.status.name} or the lock cannot be read")
    try:
        scores = _scores(run)
    except OSError:
        problems.append(f"{run.metrics.name} cannot be read")
    except (LentigoError, ValueError, AttributeError):
        problems.append(f"{run.metrics.name} is damaged")
    counts = dict.fromkeys(("suspects", "reviewed"), 0)
    for kind, path, read in (
        ("suspects", suspects_path(run), read_suspects),
        ("reviewed", review_path(run), read_reviews),
    ):
        try:
            counts[kind] = len(read(run))
        except OSError:
            problems.append(f"{path.parent.name}/{path.name} cannot be read")
        except LentigoError:
            problems.append(f"{path.parent.name}/{path.name} is damaged")
    return {
        "name": run.path.name,
        **{fact: status.get(fact) for fact in _STATUS_FACTS},
        "scores": scores,
        "report": run.report.is_file(),
        **counts,
        "problems": problems,
    }


def _scores(run: RunDir) -> dict[str, Any]:
    """Split -> n, interval and the shown metrics as estimates."""
    if not run.metrics.is_file():
        return {}
    found = {}
    for split, content in json.loads(run.metrics.read_text(encoding="utf-8")).items():
        judgement = Judgement.from_dict(content)
        found[split] = {
            "n_images": judgement.n_images,
            "n_lesions": judgement.n_lesions,
            "interval": judgement.interval,
            "metrics": {name: asdict(judgement.metrics[name]) for name in SHOWN_METRICS if name in judgement.metrics},
        }
    return found


@lru_cache(maxsize=4)
def _rows(catalog: Path, modified_ns: int) -> dict[str, Row]:
    """Image id -> row; `modified_ns` is part of the key, so that a changed table is read again."""
    return {row.image_id: row for row in read_catalog_csv(catalog)}
