"""The table of a round of hard mining: how hard each training image is, how often it is drawn, and why."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lentigo.core.config import MiningConfig
from lentigo.core.errors import DataError, first_five
from lentigo.core.files import write_text_atomic
from lentigo.core.taxonomy import CLASS_CODES, find_label
from lentigo.data.catalog import Catalog

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RoundTable:
    """One row per training image; every array is (N,).

    answered: class of the largest mean probability. mean_confidence: probability of the true class, averaged over
    the models that judged the image; variability: its standard deviation over them (Swayamdipta et al., Dataset
    Cartography, arXiv 2009.10795). el2n: mean Euclidean length of probabilities minus one-hot label (Paul et al.,
    arXiv 2107.07075). margin: mean probability of the true class less the largest other one. wrong_confidence:
    least probability that any model gave to `answered` where all answered the same wrong class, else 0. agreement:
    least share of nearest training images that have the image's own label, NaN where it was not measured.
    suspect: contradicted by models and neighbours. weight: factor of its draws. why: the reason for the weight.
    """

    image_id: tuple[str, ...]
    lesion_id: tuple[str, ...]
    label: NDArray[np.int64]
    answered: NDArray[np.int64]
    mean_confidence: Floats
    variability: Floats
    el2n: Floats
    margin: Floats
    wrong_confidence: Floats
    agreement: Floats
    suspect: NDArray[np.bool_]
    weight: Floats
    why: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def hardness(self) -> Floats:
        """1 - mean_confidence, 0..1."""
        return 1 - self.mean_confidence

    def ordered(self, rows: Catalog) -> RoundTable:
        """The same table in the order of `rows`; DataError where it is of other images, labels or lesions."""
        place = {image_id: i for i, image_id in enumerate(self.image_id)}
        missing = [row.image_id for row in rows if row.image_id not in place]
        if missing or len(place) != len(rows):
            raise DataError(
                f"the mining table has {len(place)} images, the training set {len(rows)}; "
                f"{len(missing)} of these are missing in it: {first_five(missing)}",
                "Mine the run again with `lentigo mine`.",
            )
        order = [place[row.image_id] for row in rows]
        changed = [
            row.image_id
            for row, i in zip(rows, order, strict=True)
            if (row.label, row.lesion_id) != (self.label[i], self.lesion_id[i])
        ]
        if changed:
            raise DataError(
                f"the mining table has another label or lesion than the training set for {len(changed)} of its "
                f"{len(self)} images: {first_five(changed)}",
                "Mine the run again with `lentigo mine`.",
            )
        columns: dict[str, Any] = {name: getattr(self, name) for name in _NAMES}
        for name, column in columns.items():
            columns[name] = tuple(column[i] for i in order) if name in _TEXTS else column[order]
        return RoundTable(**columns)

    def weighted(self, weight: Floats, why: list[str]) -> RoundTable:
        """The same images with other weights and reasons."""
        return replace(self, weight=weight, why=tuple(why))

    def to_csv(self, path: Path) -> Path:
        """Write the table, hardest images first."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(_HEADER)
        columns = [getattr(self, name) for name in _HEADER]
        for i in np.argsort(-self.hardness, kind="stable"):
            writer.writerow([_text(name, column[i]) for name, column in zip(_HEADER, columns, strict=True)])
        return write_text_atomic(path, buffer.getvalue())

    @classmethod
    def from_csv(cls, path: Path) -> RoundTable:
        """Read a table that `to_csv` wrote; DataError where it is missing or damaged."""
        try:
            rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
            if not rows or tuple(rows[0]) != _HEADER:
                raise ValueError(f"expected rows under the header {','.join(_HEADER)}")
            values = {name: [_value(name, row[name]) for row in rows] for name in _NAMES}
        except FileNotFoundError:
            raise DataError(f"no mining table {path}", "Mine the run with `lentigo mine`.") from None
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise DataError(f"{path} is damaged: {error}", "Restore it, or mine the run again.") from None
        return cls(**{name: _column(name, column) for name, column in values.items()})


_NAMES = tuple(field.name for field in fields(RoundTable))
_HEADER = (*_NAMES[:4], "hardness", *_NAMES[4:])
_TEXTS, _LABELS = ("image_id", "lesion_id", "why"), ("label", "answered")


def _text(name: str, value: Any) -> str:
    if name in _TEXTS:
        return str(value)
    if name in _LABELS:
        return CLASS_CODES[int(value)]
    return str(int(value)) if name == "suspect" else repr(float(value))


def _value(name: str, text: str) -> str | int | float | bool:
    if name in _TEXTS:
        return text
    if name in _LABELS:
        label = find_label(text)
        if label is None:
            raise ValueError(f"unknown class {text!r}")
        return label
    return text == "1" if name == "suspect" else float(text)


def _column(name: str, values: list[str | int | float | bool]) -> Any:
    if name in _TEXTS:
        return tuple(values)
    return np.array(values, dtype={"suspect": np.bool_}.get(name, np.int64 if name in _LABELS else np.float64))


def ramped(factors: Floats, epoch: int, epochs: int, mining: MiningConfig) -> Floats:
    """The factors (N,) of one epoch (0-based): boosts rise evenly over the ramp; a set drawn alone does not ramp."""
    if (factors == 0).any():
        return factors
    ramp_epochs = max(1, math.ceil(mining.ramp_fraction * epochs))
    return 1 + min(1.0, (epoch + 1) / ramp_epochs) * (factors - 1)
