"""The search for an int8 graph that passes its gates, with few layers in float.

A few layers do most of the harm, often the first ones, which are small: in float they cost little. Training images say
which and how many; val only judges, and more layers stay in float where it does not agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lentigo.core.errors import ExportError
from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import Catalog
from lentigo.deploy.parity import Attempt, Int8Record, VariantParity, rounding_failures
from lentigo.deploy.quantize import ERROR_IMAGES, Layer, LayerError, Pixels, Quantizer, correct_shift, layer_errors

ERROR_BUDGET = 0.1
"""What the errors of the int8 layers may come to, root sum of squares: a tenth of the logits' spread."""
MORE_IN_FLOAT = (0, 2, 4, 8, 16)
"""Layers in float beyond those that the budget asks for, attempt by attempt: each is one more look at val."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Int8:
    """A graph that passed, its predictions on val, what they are worth, and how it was found."""

    graph: bytes
    predictions: Predictions
    judged: VariantParity
    record: Int8Record


def find_int8(
    graph: bytes,
    rows: Catalog,
    squares: Pixels,
    judge: Callable[[bytes], tuple[Predictions, VariantParity]],
    *,
    progress: Progress = lambda what, done, total: None,
) -> Int8:
    """The first int8 graph of the attempts that passes its gates.

    rows, squares (M, S, S, 3): the training images for the ranges; every few of them measure the layers' errors.

    Raises:
        ExportError: where no attempt passes.
    """
    progress("ranges for int8", 0, 1)
    quantizer = Quantizer.calibrate(graph, squares)
    sample = squares[:: max(1, len(squares) // ERROR_IMAGES)]
    errors = layer_errors(quantizer, sample, progress=partial(progress, "error of each layer"))
    least = layers_over_budget([error.error for error in errors])
    attempts: list[Attempt] = []
    for more in MORE_IN_FLOAT:
        kept = [error.layer for error in errors[: least + more]]
        if len(kept) == len(errors) and attempts:
            break
        rounded = quantizer.quantize(kept_float=[layer.node for layer in kept])
        found, shift = correct_shift(quantizer, rounded, squares)
        predictions, judged = judge(found)
        attempts.append(_attempt(kept, shift, judged))
        if not attempts[-1].failures:
            return Int8(found, predictions, judged, _record(quantizer, rows, attempts, errors))
    raise ExportError(
        f"int8 fails its gates in {len(attempts)} attempts, the last with {len(attempts[-1].kept_float)} of "
        f"{len(quantizer.layers)} layers in float: {'; '.join(attempts[-1].failures)}. Nothing was written",
        "Export without it: --to onnx.",
    )


def layers_over_budget(errors: Sequence[float]) -> int:
    """How many of the errors, sorted with the worst first, must go for the rest to stay within ERROR_BUDGET.

    At least one layer remains: a graph without any would be no int8.
    """
    for count in range(len(errors) - 1):
        if math.hypot(*errors[count:]) <= ERROR_BUDGET:
            return count
    return max(0, len(errors) - 1)


def _attempt(kept: Sequence[Layer], shift: tuple[float, ...], judged: VariantParity) -> Attempt:
    balanced, melanoma = judged.balanced_accuracy_difference, judged.melanoma_sensitivity_difference
    assert balanced is not None
    assert melanoma is not None
    return Attempt(
        kept_float=tuple(layer.name for layer in kept),
        logit_shift=shift,
        balanced_accuracy_difference=balanced,
        melanoma_sensitivity_difference=melanoma,
        failures=rounding_failures(judged),
    )


def _record(
    quantizer: Quantizer, rows: Catalog, attempts: Sequence[Attempt], errors: Sequence[LayerError]
) -> Int8Record:
    return Int8Record(
        calibration_images=dict(zip(CLASS_CODES, rows.class_counts.tolist(), strict=True)),
        layers=len(quantizer.layers),
        attempts=tuple(attempts),
        layer_errors={error.layer.name: error.error for error in errors},
    )
