"""One call of `lentigo predict`: which format, what may be written where, and what the whole run came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.files import write_atomic
from lentigo.deploy.activation_map import activation_overlay
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.engine import Failure, Outcome
from lentigo.deploy.inputs import Item

Format = Literal["table", "json", "csv", "isic", "jsonl", "parquet", "html"]
FILE_ONLY = ("parquet", "html")
RESUMABLE = ("csv", "jsonl")
_KEPT_FAILURES = 5


def choose_format(given: Format | None, out: Path | None, *, as_json: bool) -> Format:
    """The format asked for, or that of the ending of `out`, or a table.

    Raises:
        ConfigError: where options contradict each other, or the ending says nothing.
    """
    if as_json and given not in (None, "json"):
        raise ConfigError(f"expected one format; found --json and --format {given}", "Drop one of them.")
    chosen: Format | None = "json" if as_json else given
    if chosen is None and out is None:
        return "table"
    endings: dict[str, Format] = {f".{name}": name for name in get_args(Format) if name not in ("table", "isic")}
    if chosen is None and out is not None:
        chosen = endings.get(out.suffix.lower())
        if chosen is None:
            raise ConfigError(
                f"{out.name} does not tell the format; expected an ending of {', '.join(endings)}",
                "Name the format with --format.",
            )
    assert chosen is not None
    if chosen == "table" and out is not None:
        raise ConfigError("a table is printed, not written", "Take --format csv for a file.")
    if chosen in FILE_ONLY and out is None:
        raise ConfigError(f"--format {chosen} needs a file", f"For example --out predictions.{chosen}")
    return chosen


def check_out(out: Path | None, chosen: Format, *, resume: bool) -> None:
    """Raise ConfigError where `resume` makes no sense, or DataError where a file would be lost."""
    if resume and (out is None or chosen not in RESUMABLE):
        raise ConfigError("--resume continues a csv or jsonl file named by --out", "Drop --resume, or name the file.")
    if out is not None and not resume and out.exists():
        hint = ", or continue it with --resume" if chosen in RESUMABLE else ""
        raise DataError(f"{out} exists already", f"Name another file{hint}.")


@dataclass(slots=True)
class Tally:
    """What a run came to: images by answer, those abstained from, flags of quality, those of another kind, and the
    first failures."""

    images: int = 0
    failed: int = 0
    outliers: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    abstained: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    first_failures: list[Failure] = field(default_factory=list)

    def follow(
        self, outcomes: Iterable[Outcome], *, strict: bool = False, progress: Callable[[int], None] = lambda done: None
    ) -> Iterator[Outcome]:
        """Pass outcomes on and count them; `progress(done)` is called after each.

        Raises:
            DataError: with `strict`, at the first failure.
        """
        for outcome in outcomes:
            answer = outcome.answer
            self.images += 1
            if isinstance(answer, Failure):
                if strict:
                    raise DataError(answer.error, f"{answer.remedy} Without --strict the other images are answered.")
                self.failed += 1
                if len(self.first_failures) < _KEPT_FAILURES:
                    self.first_failures.append(answer)
            else:
                self.answers[answer.label] += 1
                self.abstained[answer.label] += bool(answer.abstain)
                self.flags.update(answer.quality_flags)
                self.outliers += bool(answer.outlier)
            yield outcome
            progress(self.images)


def check_overlays(folder: Path, classifier: Classifier, *, resume: bool) -> None:
    """Raise before anything is answered where overlays cannot be drawn, or would join other files.

    Raises:
        ConfigError: where the model's head allows no maps, or the folder holds something and `resume` is off.
    """
    side = classifier.spec.preprocess.input_size_px
    activation_overlay(classifier, np.zeros((side, side, 3), np.uint8), classifier.spec.classes[0])
    if folder.exists() and (not folder.is_dir() or (not resume and any(folder.iterdir()))):
        raise ConfigError(f"expected a new or empty folder for the overlays; found {folder}", "Name another folder.")


def draw_overlays(
    outcomes: Iterable[Outcome], folder: Path, classifier: Classifier, items: Sequence[Item]
) -> Iterator[Outcome]:
    """Pass outcomes on and write what spoke for each answer as `00012-image_id-mel.jpg`, numbered as in `items`.

    Outcomes bring `pixels`. An image that is answered again is drawn again.
    """
    numbers = {item: number for number, item in enumerate(items, start=1)}
    for outcome in outcomes:
        if outcome.pixels is not None and not isinstance(outcome.answer, Failure):
            safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in outcome.item.image_id)[:100]
            path = folder / f"{numbers[outcome.item]:05d}-{safe}-{outcome.answer.label}.jpg"
            picture = activation_overlay(classifier, outcome.pixels, outcome.answer.label)
            write_atomic(path, partial(picture.save, format="JPEG", quality=90))
        yield outcome
