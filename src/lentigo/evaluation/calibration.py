"""Everything that was fitted on val after training, and what it makes of new logits: probabilities and decisions.

`lentigo.evaluation.fit_calibration` makes it; here it is only read and applied, with numpy alone, as every runtime
does. The probabilities are softmax(logits / T), one temperature T (Guo et al., ICML 2017).

Shapes: N images, C = 7 classes; logits (N, C) before softmax, with the model's own prior correction; labels (N,)
int64; probs (N, C) float64, rows sum to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from lentigo.core.errors import ConfigError, DataError, first_five
from lentigo.core.files import write_json_atomic
from lentigo.core.predictions import softmax
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.evaluation.clinical import QUESTIONS
from lentigo.evaluation.conformal import PER_CLASS, ConformalSets, Kind
from lentigo.evaluation.delong import task_scores
from lentigo.evaluation.intervals import Rows
from lentigo.evaluation.metrics import Estimate, Floats, Labels
from lentigo.evaluation.scaling import Logits, class_mix, correct_prior, scaled_softmax
from lentigo.evaluation.selective import AbstainRule, RuleKind
from lentigo.evaluation.thresholds import FrozenThreshold

_FILE_REMEDY = "Delete it and run `lentigo evaluate` on val again."


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a calibration makes of N images.

    probs: (N, 7) calibrated; sets: kind -> (N, 7) bool; accepted: kind of abstain rule -> (N,) bool;
    positive: name of operating point -> (N,) bool, points without a threshold left out.
    """

    probs: Floats
    sets: Mapping[Kind, Rows]
    accepted: Mapping[RuleKind, Rows]
    positive: Mapping[str, Rows]


class VectorScaling(BaseModel):
    """softmax(scale * logits + bias), seven numbers each: stored for whoever wants it, never used by default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scale: tuple[float, ...] = PER_CLASS
    bias: tuple[float, ...] = PER_CLASS


class Calibration(BaseModel):
    """All that was fitted on val; it travels with the weights.

    `class_prior` (7 shares) is the mix of classes that the probabilities speak of, as far as val can tell.
    `class_counts` are val's images per class. `log_loss` (nats, on val) has `before`, and cross-fitted, None with
    fewer than two lesions: `temperature`, `temperature_mix` (then corrected to val's own mix of classes), `vector`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format_version: Literal[1] = 1
    method: Literal["temperature"] = "temperature"
    temperature: float = Field(gt=0)
    class_prior: tuple[Annotated[float, Field(gt=0, le=1)], ...] = PER_CLASS
    split: str
    n_images: int
    n_lesions: int
    class_counts: tuple[Annotated[int, Field(ge=0)], ...] = PER_CLASS
    operating_points: tuple[FrozenThreshold, ...]
    sets: dict[Kind, ConformalSets]
    rules: dict[RuleKind, AbstainRule]
    log_loss: dict[str, Estimate] = {}
    vector: VectorScaling | None = None

    @field_validator("operating_points")
    @classmethod
    def _known_questions(cls, points: tuple[FrozenThreshold, ...]) -> tuple[FrozenThreshold, ...]:
        unknown = [point.question for point in points if point.question not in QUESTIONS]
        if unknown:
            raise ValueError(f"expected the questions {', '.join(QUESTIONS)}; found {first_five(unknown)}")
        return points

    @field_validator("sets", "rules")
    @classmethod
    def _every_kind(cls, fitted: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        expected = get_args(Kind if info.field_name == "sets" else RuleKind)
        found = [key if key == one.kind else f"{key} of kind {one.kind}" for key, one in fitted.items()]
        if set(found) != set(expected):
            raise ValueError(f"expected {' and '.join(expected)}; found {', '.join(found) or 'neither'}")
        return fitted

    @property
    def thresholds(self) -> dict[str, float]:
        """Name of operating point -> threshold, where there is one."""
        return {point.name: point.threshold for point in self.operating_points if point.threshold is not None}

    @property
    def absent(self) -> tuple[str, ...]:
        """Codes of the classes that val lacks."""
        return tuple(code for code, count in zip(CLASS_CODES, self.class_counts, strict=True) if not count)

    @property
    def mix(self) -> tuple[float, ...]:
        """Val's own mix of classes, 7 shares: the `class_prior` to ask for where lesions come as in val."""
        return tuple(class_mix(np.asarray(self.class_counts)).tolist())

    def apply(self, logits: Logits, *, class_prior: Sequence[float] | None = None) -> Floats:
        """Calibrated probabilities (N, 7) of logits (N, 7); with `class_prior`, for that mix of classes instead.

        Raises:
            ConfigError: where `class_prior` is not seven shares above 0 that sum to 1.
        """
        probs = scaled_softmax(logits, self.temperature)
        return probs if class_prior is None else correct_prior(probs, self.class_prior, class_prior)

    def apply_vector(self, logits: Logits) -> Floats:
        """Probabilities (N, 7) by vector scaling, whose answers may differ from the model's own.

        Raises:
            ConfigError: where none was fitted.
        """
        if self.vector is None:
            raise ConfigError(
                "this calibration has no vector scaling", "Run `lentigo evaluate` on val again to fit it."
            )
        return softmax(logits * np.asarray(self.vector.scale) + np.asarray(self.vector.bias))

    def decide(self, logits: Logits) -> Decisions:
        """Everything at once for logits (N, 7) of rows that it was not fitted on."""
        probs = self.apply(logits)
        sets = {kind: rule.sets(probs) for kind, rule in self.sets.items()}
        confidence, sizes = confidence_sizes(probs, sets["class_conditional"])
        thresholds = self.thresholds
        return Decisions(
            probs=probs,
            sets=sets,
            accepted={kind: rule.accepts(confidence, sizes) for kind, rule in self.rules.items()},
            positive={
                point.name: binary_score(probs, point.question) >= thresholds[point.name]
                for point in self.operating_points
                if point.name in thresholds
            },
        )

    def to_json(self, path: Path) -> Path:
        """Write it atomically; every number comes back exactly."""
        return write_json_atomic(path, self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, path: Path) -> Calibration:
        """Read what `to_json` wrote.

        Raises:
            DataError: where the file is missing, damaged or of another version.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise DataError(f"no calibration at {path}", "Run `lentigo evaluate` on val to make it.") from None
        except ValidationError as error:
            places = [".".join(str(part) for part in problem["loc"]) or "the text" for problem in error.errors()]
            raise DataError(
                f"expected a calibration in {path}; missing or wrong there: {first_five(places)}", _FILE_REMEDY
            ) from None


def calibrated_probs(logits: Logits, calibration: Calibration | None) -> Floats:
    """Probabilities (N, 7): calibrated, or the plain softmax of a run without a calibration."""
    return softmax(logits) if calibration is None else calibration.apply(logits)


def binary_score(probs: Floats, question: str) -> Floats:
    """The score (N,) of a question in `clinical.QUESTIONS`: the summed probability of its classes."""
    return task_scores(np.zeros(len(probs), dtype=np.int64), probs, QUESTIONS[question])[1]


def confidence_sizes(probs: Floats, sets: Rows) -> tuple[Floats, Labels]:
    """What the abstain rules look at: the highest probability (N,) and the classes in each set (N,)."""
    return probs.max(axis=1, initial=0.0), sets.sum(axis=1)
