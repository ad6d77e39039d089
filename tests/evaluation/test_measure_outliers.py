"""The gate of a tiny run, fitted and judged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.evaluation.measure_outliers import CORRUPTED, measure_outliers
from lentigo.evaluation.outliers import FeatureStatistics, OutlierGate
from lentigo.evaluation.run_records import read_outliers
from lentigo.training.run import read_catalog

from .untrained import untrained_run


@pytest.fixture
def run(synthetic_catalog: Catalog, tmp_path: Path) -> RunDir:
    """An untrained network on the drawings, as a run."""
    return untrained_run(tmp_path / "run", synthetic_catalog)


def test_measurement_of_a_run(run: RunDir, tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photographs / f"{number}.png")
    stages: list[tuple[int, int]] = []
    found = measure_outliers(
        run, [photographs], most_images=5, resamples=100, progress=lambda *counts: stages.append(counts)
    )
    assert found.chosen == "mahalanobis"
    kinds = found.scores["mahalanobis"].kinds
    assert {*CORRUPTED, "photographs"} <= set(kinds)
    assert all(kind.rejected.n == 5 and kind.auroc.value is not None for kind in kinds.values())
    assert stages == [(done, 7) for done in range(1, 8)], "train, val, four corruptions, one folder"
    assert read_outliers(run) == found
    gate = OutlierGate.model_validate_json(run.outlier_gate.read_text(encoding="utf-8"))
    assert gate == found.scores["mahalanobis"].gate
    assert gate.n == found.n_familiar
    assert FeatureStatistics.from_file(run.outlier_statistics).means.shape[1] == 1280


def test_folders_of_photographs_are_checked_before_anything_is_measured(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folders, error in (
        ([tmp_path / "a" / "x", tmp_path / "b" / "x"], ConfigError),
        ([tmp_path / CORRUPTED[0]], ConfigError),
        ([tmp_path / "empty"], DataError),
        ([tmp_path / "none"], DataError),
    ):
        with pytest.raises(error):
            measure_outliers(run, folders)
    assert not run.outlier_statistics.parent.exists()


def test_images_of_the_run_are_no_other_kind(run: RunDir, tmp_path: Path) -> None:
    own = read_catalog(run).rows[0]
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(own.path, folder / own.path.name)
    with pytest.raises(DataError, match="1 images of the run's own data set"):
        measure_outliers(run, [folder])
