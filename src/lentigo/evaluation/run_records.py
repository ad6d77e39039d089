"""What a judged run holds, read back: its log, its scores by split, its examinations, its calibration. Or dropped."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from lentigo.core.errors import DataError, first_five
from lentigo.core.files import write_json_atomic
from lentigo.core.run_dir import RunDir
from lentigo.evaluation.calibration import Calibration
from lentigo.evaluation.evaluate import Judgement
from lentigo.evaluation.examine import Examination
from lentigo.evaluation.explain_run import Explanations, read_explanations
from lentigo.evaluation.outliers import OutlierJudgement
from lentigo.evaluation.robustness import Robustness
from lentigo.evaluation.run_metrics import judged_weights, read_metrics, read_object

Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out about a run beyond its scores; None where it was not asked for.

    `examination` is that of `split`. Calibration, robustness and outliers are always of val, explanations of the
    split that they name.
    """

    split: str
    examination: Examination | None
    calibration: Calibration | None
    robustness: Robustness | None
    outliers: OutlierJudgement | None
    explanations: Explanations | None


def read_log(path: Path) -> list[dict[str, float]]:
    """Rows of log.csv; empty where there is none.

    Raises:
        DataError: where it is damaged.
    """
    if not path.is_file():
        return []
    try:
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        return [{name: float(value) for name, value in row.items() if value} for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is damaged: {error}", "Restore it, or delete it to go without curves.") from None


def read_judgements(run: RunDir) -> dict[str, Judgement]:
    """The judgements in metrics.json by split; DataError where it is damaged."""
    return {name: Judgement.from_dict(content) for name, content in read_metrics(run).items()}


def drop_stale(run: RunDir, weights: str) -> list[str]:
    """Before val is judged with other weights than last time: what was found of those must not answer for these.

    Gives what was dropped, in words. What has no digest was judged by an earlier version, and stays; so do the counted
    looks at test. Corrupted images and images of other kinds are judged with the weights of val alone, and
    explanations show errors in stored predictions, so that the digest of val is theirs, too.
    """
    dropped: list[str] = []
    if judged_weights(run, "test") not in ("", weights):
        figures = run.figure("any").parent.glob("*_test.svg")
        metrics, examined = read_metrics(run), {name: one.as_dict() for name, one in read_examinations(run).items()}
        if _unlink(run.predictions("test"), run.text_report("test"), *figures) or "test" in metrics:
            dropped.append("test")
        for path, content in ((run.examination, examined), (run.metrics, metrics)):
            if content.pop("test", None) is not None:
                write_json_atomic(path, content)
    if judged_weights(run, "val") not in ("", weights):
        found = {
            "corrupted images": _unlink(run.robustness),
            "images of other kinds": _unlink(run.outlier_judgement, run.outlier_gate, run.outlier_statistics),
            "explanations": _unlink(run.explanation_check),
        }
        dropped += [name for name, was_there in found.items() if was_there]
    return dropped


def _unlink(*paths: Path) -> bool:
    """Whether any was there."""
    found = [path for path in paths if path.is_file()]
    for path in found:
        path.unlink()
    return bool(found)


def read_examinations(run: RunDir) -> dict[str, Examination]:
    """The examinations in examination.json by split; empty for a run judged before there were any."""
    if not run.examination.is_file():
        return {}
    remedy = "Delete it and run `lentigo evaluate` again."
    content = read_object(run.examination, remedy)
    try:
        return {split: Examination.model_validate(one) for split, one in content.items()}
    except ValidationError as error:
        places = [".".join(str(part) for part in problem["loc"]) for problem in error.errors()]
        raise DataError(f"{run.examination}: missing or wrong there: {first_five(places)}", remedy) from None


def read_calibration(run: RunDir) -> Calibration | None:
    """What was fitted on val; None where val was not judged yet."""
    return Calibration.from_json(run.calibration) if run.calibration.is_file() else None


def read_robustness(run: RunDir) -> Robustness | None:
    """Scores on corrupted images; None where they were not asked for."""
    return _read_record(run.robustness, Robustness, "--corruptions")


def read_outliers(run: RunDir) -> OutlierJudgement | None:
    """The gate for images of other kinds, judged; None where it was not asked for."""
    return _read_record(run.outlier_judgement, OutlierJudgement, "--outliers")


def read_findings(run: RunDir, split: str) -> Findings:
    """All of it, with the examination of `split`.

    Raises:
        DataError: where a file is damaged.
    """
    return Findings(
        split=split,
        examination=read_examinations(run).get(split),
        calibration=read_calibration(run),
        robustness=read_robustness(run),
        outliers=read_outliers(run),
        explanations=read_explanations(run),
    )


def _read_record(path: Path, kind: type[Record], option: str) -> Record | None:
    """`option` of `lentigo evaluate` writes the file."""
    if not path.is_file():
        return None
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged: {error.error_count()} entries are missing or wrong",
            f"Delete it and run `lentigo evaluate {option}` again.",
        ) from None
