"""The table of predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import softmax as scipy_softmax

from lentigo.core.errors import DataError
from lentigo.core.predictions import Predictions, softmax

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def table(logits: NDArray[np.float32]) -> Predictions:
    count = len(logits)
    labels = np.arange(count, dtype=np.int64) % 7
    ids = tuple(f'image "{i}", ä' for i in range(count))
    return Predictions(ids, tuple(f"lesion_{i // 2}" for i in range(count)), labels, logits)


@given(arrays(np.float32, st.tuples(st.integers(0, 5), st.just(7)), elements=FINITE))
def test_csv_brings_every_bit_back(tmp_path_factory: pytest.TempPathFactory, logits: NDArray[np.float32]) -> None:
    written = table(logits)
    read = Predictions.from_csv(written.to_csv(tmp_path_factory.mktemp("table") / "val.csv"))
    assert read.logits.dtype == np.float32
    assert read.logits.tobytes() == logits.tobytes()
    assert (read.image_id, read.lesion_id) == (written.image_id, written.lesion_id)
    assert read.label.tolist() == written.label.tolist()
    assert len(read) == len(logits)


@given(arrays(np.float32, (3, 7), elements=st.floats(-1e4, 1e4, width=32)))
def test_softmax_is_scipys(logits: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits.astype(np.float64), axis=1), atol=1e-12)
    np.testing.assert_allclose(table(logits).probs.sum(axis=1), 1.0)


def test_unequal_columns_and_infinite_logits_are_refused() -> None:
    good = np.zeros((3, 7), dtype=np.float32)
    with pytest.raises(DataError, match="columns of equal length"):
        Predictions(("a", "b"), ("a", "b", "c"), np.zeros(3, np.int64), good)
    with pytest.raises(DataError, match=r"\(3, 6\)"):
        Predictions(("a", "b", "c"), ("a", "b", "c"), np.zeros(3, np.int64), good[:, :6])
    bad = good.copy()
    bad[1, 2] = np.inf
    with pytest.raises(DataError, match=r"1 of 3 images are not finite: b") as error:
        Predictions(("a", "b", "c"), ("a", "b", "c"), np.zeros(3, np.int64), bad)
    assert "learning rate" in error.value.remedy


def test_broken_tables(tmp_path: Path) -> None:
    path = table(np.zeros((4, 7), dtype=np.float32)).to_csv(tmp_path / "val.csv")
    header, *lines = path.read_text(encoding="utf-8").splitlines()

    def write(*rows: str) -> Path:
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        return path

    with pytest.raises(DataError, match="no predictions"):
        Predictions.from_csv(tmp_path / "none.csv")
    with pytest.raises(DataError, match="expected the header"):
        Predictions.from_csv(write(*lines))
    cut = [lines[0].rsplit(",", 1)[0], lines[1], lines[2].replace(",bkl,", ",wart,"), lines[1]]
    with pytest.raises(DataError, match=r"line 2, line 4.*given twice"):
        Predictions.from_csv(write(header, *cut))
    with pytest.raises(DataError, match="malformed: line 3"):
        Predictions.from_csv(write(header, lines[0], lines[1].rsplit(",", 1)[0] + ",much"))
    with pytest.raises(DataError, match=r"val\.csv: logits of 1 of 2 images are not finite: image") as error:
        Predictions.from_csv(write(header, lines[0], lines[1].rsplit(",", 1)[0] + ",nan"))
    assert "learning rate" in error.value.remedy
    with pytest.raises(DataError, match=r"val\.csv: .*separated by semicolons") as error:
        Predictions.from_csv(write(*(line.replace(",", ";") for line in (header, *lines))))
    assert error.value.remedy == "Save the table with commas."
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        Predictions.from_csv(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="an empty file"):
        Predictions.from_csv(path)
