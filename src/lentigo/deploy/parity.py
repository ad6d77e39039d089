"""What an exported graph is worth beside the network it was made from: parity.json and the gates.

All of it is measured on val, on one image per lesion, by onnxruntime on this machine's processor. Answers are the
highest logit. Differences are paired: both models see the same images, resampled by lesion.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lentigo.core.errors import ExportError
from lentigo.core.files import write_json_atomic
from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import CLASS_CODES, NUM_CLASSES
from lentigo.deploy.exported import VariantName
from lentigo.deploy.graph_session import GraphSession
from lentigo.deploy.phone_record import PhoneParity
from lentigo.evaluation.intervals import Bootstrap, bootstrap, proportions
from lentigo.evaluation.metrics import Estimate, Floats, Labels, class_scores, confusion_matrix, overall_scores
from lentigo.models.cost import Latency

LOGIT_LIMIT = 1e-4
"""Gate of fp32: largest difference of a logit to the network's."""
BALANCED_ACCURACY_LIMIT, MELANOMA_LIMIT = 0.01, 0.02
"""Gates of fp16 and int8: what balanced accuracy and melanoma sensitivity may lose against fp32, 0..1."""
_MELANOMA = CLASS_CODES.index("mel")
_SPEED_RUNS, _WARM_UP_RUNS = 41, 5

Speed = Literal["faster", "slower", "no difference measured"]


class VariantParity(BaseModel):
    """One variant with one number of views, on val.

    `max_logit_difference` and `top1_agreement` are against the network in torch; None where torch was not run with so
    many views. `melanoma_sensitivity`: melanomas answered as such. `*_difference`: this less fp32 with as many
    views, None for fp32 itself. `latency`: of one image, from finished square to logits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: VariantName
    views: int
    size_bytes: int
    n_images: int
    n_lesions: int
    max_logit_difference: float | None
    top1_agreement: Estimate | None
    balanced_accuracy: Estimate
    melanoma_sensitivity: Estimate
    balanced_accuracy_difference: Estimate | None = None
    melanoma_sensitivity_difference: Estimate | None = None
    latency: Latency | None = None


class SpeedComparison(BaseModel):
    """Time of fp32 over time of int8, for one image, run in turns: median of `n` pairs with its 95% interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float
    ci_low: float
    ci_high: float
    n: int
    finding: Speed


class Attempt(BaseModel):
    """One int8 graph that was judged: its layers left in float, what was added to its logits (7), why it failed.

    `failures` is empty where it passed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept_float: tuple[str, ...]
    logit_shift: tuple[float, ...]
    balanced_accuracy_difference: Estimate
    melanoma_sensitivity_difference: Estimate
    failures: tuple[str, ...]


class Int8Record(BaseModel):
    """How the int8 graph came about. `layer_errors`: name -> see `quantize.LayerError`, the worst first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibration_images: dict[str, int]
    layers: int
    attempts: tuple[Attempt, ...]
    layer_errors: dict[str, float]
    speed: SpeedComparison | None = None


class Parity(BaseModel):
    """parity.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    architecture: str
    checkpoint: str
    parameters: int
    macs: int
    opset: int
    split: str = "val"
    interval: str = "95% lesion-cluster bootstrap; Wilson for shares of one image per lesion"
    resamples: int
    machine: str
    threads: int
    golden_difference: float
    variants: tuple[VariantParity, ...]
    int8: Int8Record | None = None
    phones: tuple[PhoneParity, ...] = ()
    synthetic: bool = False

    def save(self, path: Path) -> Path:
        """Write it atomically."""
        return write_json_atomic(path, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return self.model_dump(mode="json")


def judge_variant(
    variant: VariantName,
    found: Predictions,
    *,
    views: int,
    size_bytes: int,
    torch_logits: NDArray[np.float32] | None,
    fp32: Predictions | None = None,
    resamples: int = 2000,
) -> VariantParity:
    """Compare a variant's predictions with the network's logits (N, 7) and, for rounded ones, with those of fp32."""
    answers = found.logits.argmax(axis=1)
    everything = np.ones(len(found), dtype=np.bool_)
    melanoma = found.label == _MELANOMA
    shares = {"melanoma": (answers == _MELANOMA, melanoma)}
    difference = None
    if torch_logits is not None:
        difference = max_difference(found.logits, torch_logits)
        shares["agreement"] = (answers == torch_logits.argmax(axis=1), everything)
    proportion = proportions(shares, found.lesion_id, resamples=resamples)
    scores = paired_scores(found, found if fp32 is None else fp32, resamples=resamples)
    return VariantParity(
        variant=variant,
        views=views,
        size_bytes=size_bytes,
        n_images=len(found),
        n_lesions=len(set(found.lesion_id)),
        max_logit_difference=difference,
        top1_agreement=proportion.get("agreement"),
        balanced_accuracy=scores.estimate("balanced_accuracy", everything),
        melanoma_sensitivity=proportion["melanoma"],
        balanced_accuracy_difference=None
        if fp32 is None
        else scores.estimate("balanced_accuracy_difference", everything),
        melanoma_sensitivity_difference=None
        if fp32 is None
        else scores.estimate("melanoma_sensitivity_difference", melanoma),
    )


def max_difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest absolute difference of two tables of logits (N, 7); 0 for none."""
    return float(np.abs(found - expected).max(initial=0.0))


def paired_scores(found: Predictions, reference: Predictions, *, resamples: int) -> Bootstrap:
    """`balanced_accuracy` of `found`, and `*_difference`: found less reference, for the same images row by row."""

    def one(table: Predictions, weights: Floats) -> dict[str, Floats]:
        answers: Labels = table.logits.argmax(axis=1)
        confusion = confusion_matrix(table.label, answers, NUM_CLASSES, weights)
        return {
            "balanced_accuracy": overall_scores(confusion)["balanced_accuracy"],
            "melanoma_sensitivity": class_scores(confusion)["recall"][:, _MELANOMA],
        }

    def score(weights: Floats) -> dict[str, Floats]:
        own, other = one(found, weights), one(reference, weights)
        return own | {f"{name}_difference": own[name] - other[name] for name in own}

    return bootstrap(score, found.lesion_id, resamples=resamples)


def require_fp32(difference: float, n_images: int, what: str, *, graph: str = "fp32") -> None:
    """The gate of fp32, and of the programs for phones (`graph`), which compute with as many digits.

    Raises:
        ExportError: where the graph is not the network.
    """
    if not difference <= LOGIT_LIMIT:  # also where it is not a number
        raise ExportError(
            f"{graph}: expected logits within {LOGIT_LIMIT:g} of torch's on {n_images} {what}; found a difference of "
            f"{difference:.3g}. Nothing was written",
            "Update torch and what made and ran the graph; if it stays, please report it with the architecture.",
        )


def rounding_failures(judged: VariantParity) -> tuple[str, ...]:
    """Why a rounded variant fails, by point estimates; empty where it passes. What is undefined cannot fail."""
    gates = (
        ("balanced accuracy", judged.balanced_accuracy_difference, BALANCED_ACCURACY_LIMIT),
        ("melanoma sensitivity", judged.melanoma_sensitivity_difference, MELANOMA_LIMIT),
    )
    return tuple(
        f"{name} {100 * found.value:+.2f} points against fp32 (n {found.n}, at most {-100 * limit:+.0f} allowed)"
        for name, found, limit in gates
        # Rounding must not turn a loss of exactly one point into more than one.
        if found is not None and found.value is not None and found.value < -limit - 1e-9
    )


def measure_latencies(sessions: Sequence[GraphSession], size_px: int) -> list[NDArray[np.float64]]:
    """Milliseconds of one image (1, S, S, 3) for each session, in turns, so that all are disturbed alike."""
    square = np.random.default_rng(0).integers(0, 256, size=(1, size_px, size_px, 3), dtype=np.uint8)
    times_ms = np.empty((len(sessions), _WARM_UP_RUNS + _SPEED_RUNS))
    for run in range(times_ms.shape[1]):
        for number, session in enumerate(sessions):
            start = time.perf_counter()
            session.logits(square)
            times_ms[number, run] = 1000.0 * (time.perf_counter() - start)
    return list(times_ms[:, _WARM_UP_RUNS:])


def latency_of(times_ms: NDArray[np.float64], threads: int) -> Latency:
    """Median and quartiles of warm runs."""
    low, median, high = np.percentile(times_ms, [25, 50, 75])
    return Latency(float(median), float(low), float(high), len(times_ms), threads)


def compare_speed(fp32_ms: NDArray[np.float64], int8_ms: NDArray[np.float64]) -> SpeedComparison:
    """Whether int8 is faster, from six or more runs in turns (n,) each; the interval needs no distribution.

    The bounds are order statistics that enclose the median with at least 95% (Hahn & Meeker, Statistical Intervals,
    1991, section 5.2).
    """
    ratios = np.sort(fp32_ms / int8_ms)
    n, outside, rank = len(ratios), 0.0, 0
    while outside + comb(n, rank) / 2**n <= 0.025:
        outside += comb(n, rank) / 2**n
        rank += 1
    low, high = float(ratios[rank - 1]), float(ratios[n - rank])
    finding: Speed = "faster" if low > 1.0 else "slower" if high < 1.0 else "no difference measured"
    return SpeedComparison(ratio=float(np.median(ratios)), ci_low=low, ci_high=high, n=n, finding=finding)
