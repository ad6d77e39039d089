"""The systems of a comparison: one or several trainings each, read from existing predictions and lined up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lentigo.core.errors import ConfigError, DataError, first_five
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.evaluation.metrics import Floats, Labels

SPLITS = ("val", "test")
TEST_NOTICE = (
    "test: the predictions were read as they are. The test split must have been judged before, once and last; "
    "choosing a system by this table is one more look at it."
)
_IMAGES_REMEDY = "Compare systems that were judged on the same rows: `lentigo evaluate` each with the same catalogue."


@dataclass(frozen=True, slots=True)
class Aligned:
    """K trainings of each arm on the same N images, in the order of sorted image ids.

    image_id: N strings; label: (N,) int64; lesion_id: (N,) strings; probs: arm name -> K arrays (N, 7) float64.
    """

    image_id: tuple[str, ...]
    lesion_id: tuple[str, ...]
    label: Labels
    probs: Mapping[str, tuple[Floats, ...]]

    @property
    def n_seeds(self) -> int:
        """K."""
        return len(next(iter(self.probs.values())))


def align(arms: Mapping[str, Sequence[Predictions]], *, least: int = 2) -> Aligned:
    """Bring every table into one order of rows; the first table of the first arm says what is expected.

    Raises:
        DataError: where there are fewer than `least` arms, or not equally many tables of each, or where images,
            labels or lesions differ; all problems at once.
    """
    counts = {name: len(tables) for name, tables in arms.items()}
    if len(arms) < least or set(counts.values()) != {max(counts.values())} or not max(counts.values()):
        found = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        raise DataError(
            f"expected {least} or more systems with equally many trainings each; found {found}",
            "Pass one predictions table a seed, the same seeds in the same order for every system.",
        )
    names = [(f"{arm}, training {k + 1}", table) for arm, tables in arms.items() for k, table in enumerate(tables)]
    reference_name, reference = names[0]
    if not len(reference):
        raise DataError(f"expected predictions; found none in {reference_name}", _IMAGES_REMEDY)
    facts = _facts(reference)
    problems = [problem for name, table in names for problem in _differences(name, table, facts)]
    if problems:
        raise DataError(
            f"expected images, labels and lesions of {reference_name} ({len(reference)}); found {'; '.join(problems)}",
            _IMAGES_REMEDY,
        )
    first = _order(reference)
    return Aligned(
        image_id=tuple(reference.image_id[i] for i in first),
        lesion_id=tuple(reference.lesion_id[i] for i in first),
        label=reference.label[first],
        probs={arm: tuple(table.probs[_order(table)] for table in tables) for arm, tables in arms.items()},
    )


def _order(table: Predictions) -> list[int]:
    return sorted(range(len(table)), key=table.image_id.__getitem__)


def _facts(table: Predictions) -> dict[str, tuple[int, str]]:
    labels: list[int] = table.label.tolist()
    return dict(zip(table.image_id, zip(labels, table.lesion_id, strict=True), strict=True))


def _differences(name: str, table: Predictions, expected: Mapping[str, tuple[int, str]]) -> list[str]:
    found = _facts(table)
    kinds = {
        "images missing": sorted(set(expected) - set(found)),
        "images too many": sorted(set(found) - set(expected)),
        "other labels": [i for i in sorted(found) if i in expected and found[i][0] != expected[i][0]],
        "other lesions": [i for i in sorted(found) if i in expected and found[i][1] != expected[i][1]],
    }
    problems = [f"{name}: {len(ids)} {kind}: {first_five(ids)}" for kind, ids in kinds.items() if ids]
    repeated = len(table) - len(found)
    return problems + ([f"{name}: {repeated} rows repeat an image_id"] if repeated else [])


@dataclass(frozen=True, slots=True)
class Arm:
    """A named system and where the predictions of its trainings are: folders of runs or ensembles, or CSV files."""

    name: str
    paths: tuple[Path, ...]


def check_split(split: str) -> None:
    """Raise ConfigError for a split that is not judged."""
    if split not in SPLITS:
        raise ConfigError(f"--split takes val or test; found {split!r}", "Scores on training images would say nothing.")


def read_arms(arms: Sequence[Arm], split: str) -> tuple[dict[str, tuple[Predictions, ...]], bool]:
    """The tables of every arm, and whether any is of drawings; reads only what was judged before.

    Raises:
        ConfigError: for a split that is not judged, or names given twice.
        DataError: where predictions are missing (all at once) or damaged.
    """
    check_split(split)
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise ConfigError(f"expected different names; found {', '.join(names)}", "Name them: NAME=RUN, or --names a,b.")
    files = {arm.name: [_predictions_file(path, split) for path in arm.paths] for arm in arms}
    missing = [(path, file) for arm in arms for path, file in zip(arm.paths, files[arm.name], strict=True)]
    missing = [(path, file) for path, file in missing if not file.is_file()]
    if missing:
        found = [f"{path} ({f'not judged on {split}' if path.exists() else 'no such file'})" for path, _ in missing]
        run = next((path for path, _ in missing if path.is_dir()), "RUN")
        caution = "; each look at test is counted" if split == "test" else ""
        raise DataError(
            f"expected existing predictions on {split}; found none for {first_five(found)}",
            f"Judge first: `lentigo evaluate {run} --split {split}`{caution}.",
        )
    tables = {name: tuple(Predictions.from_csv(file) for file in paths) for name, paths in files.items()}
    return tables, any(is_synthetic(file) for paths in files.values() for file in paths)


def _predictions_file(path: Path, split: str) -> Path:
    """The CSV that a folder or a CSV's own path stands for."""
    if path.is_dir():
        ensemble = RunDir(path).ensemble.is_file()  # which has no config.toml
        return (RunDir(path) if ensemble else RunDir.open(path)).predictions(split)
    named = path.stem.rpartition(".")[2]  # SPLIT.csv in a run, STUDY-ROW-sSEED.SPLIT.csv among the results
    if named in SPLITS and named != split:
        raise ConfigError(f"expected predictions on {split}; found {path}", f"Pass --split {named}.")
    return path


def is_synthetic(file: Path) -> bool:
    """Whether the run that a predictions file lies in, or the result beside it, is of drawings."""
    result = file.parent.parent / f"{file.stem.rpartition('.')[0]}.json"
    if result.is_file():
        return bool(json.loads(result.read_text(encoding="utf-8")).get("synthetic"))
    run = RunDir(file.parent.parent)
    return run.predictions(file.stem) == file and run.status.is_file() and bool(run.read_status().get("synthetic"))
