"""Fit everything that belongs to a model after training, on val: temperature, thresholds, sets and the abstain rules.

The stored probabilities are softmax(logits / T), one temperature T (Guo et al., ICML 2017): it keeps the order of
the classes, so that no answer and no accuracy changes, and one number cannot overfit a val set with a few images
of the rare classes. Vector scaling (a scale and a bias a class) is stored and reported beside it, not used: it moves
answers towards the classes that are frequent in val, which undoes a prior correction, and away from absent ones.

What was fitted on val must not be judged on the same rows: `cross_fitted` gives every val image what was fitted on
other lesions. `Calibration.decide` is for other rows. Only fitting needs scipy.

Shapes: N images, C = 7 classes; logits (N, C) before softmax, with the model's own prior correction; labels (N,)
int64; probs (N, C) float64, rows sum to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.predictions import Predictions, softmax
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.catalog import Catalog, Row
from lentigo.data.splits import fold_assignment
from lentigo.evaluation.calibration import Calibration, Decisions, VectorScaling, confidence_sizes
from lentigo.evaluation.clinical import GOALS, QUESTIONS
from lentigo.evaluation.conformal import Kind, fit_sets
from lentigo.evaluation.delong import task_scores
from lentigo.evaluation.intervals import Rows, mean_estimate
from lentigo.evaluation.metrics import Estimate, Floats, log_losses
from lentigo.evaluation.scaling import (
    class_mix,
    correct_prior,
    fit_class_prior,
    fit_temperature,
    fit_vector,
    scaled_softmax,
)
from lentigo.evaluation.selective import RuleKind, fit_rule
from lentigo.evaluation.thresholds import fit_threshold

_KINDS: tuple[Kind, ...] = ("class_conditional", "marginal")
_RULES: tuple[RuleKind, ...] = ("confidence", "set_size")
_CANDIDATES = ("temperature", "temperature_mix", "vector")


def fit_calibration(
    predictions: Predictions,
    *,
    split: str = "val",
    alpha: float = 0.1,
    max_error: float = 0.1,
    folds: int = 5,
    resamples: int = 2000,
    seed: int = 0,
) -> Calibration:
    """Fit everything on the predictions of val; alpha is for the sets, `max_error` for the abstain rules.

    A val set that lacks classes, or has one class or one image, gives a calibration, too: a threshold that it cannot
    tell is None, a class that it knows too little of is in every set, always with n. The folds judge the log loss.

    Raises:
        ConfigError: for another split than val, or levels that are not between 0 and 1.
        DataError: where there are no predictions.
    """
    if split != "val":
        raise ConfigError(
            f"a calibration is fitted on val; found {split!r}", "Test is for judging, and training images are known."
        )
    fitted = _fit(predictions, alpha, max_error)
    log_loss = {
        name: Estimate(None, None, None, len(predictions))
        if probs is None
        else mean_estimate(log_losses(predictions.label, probs), predictions.lesion_id, resamples=resamples, seed=seed)
        for name, probs in _candidates(predictions, folds, seed).items()
    }
    scale, bias = fit_vector(predictions.logits, predictions.label)
    vector = VectorScaling(scale=tuple(scale.tolist()), bias=tuple(bias.tolist()))
    return fitted.model_copy(update={"log_loss": log_loss, "vector": vector})


def cross_fitted(
    predictions: Predictions, *, alpha: float = 0.1, max_error: float = 0.1, folds: int = 5, seed: int = 0
) -> Decisions:
    """What each image gets from a calibration that was fitted without its lesion: for honest numbers on val itself.

    An operating point or abstain rule is left out where any fold has none: the rest would not be that of the whole.

    Raises:
        ConfigError: where levels are not between 0 and 1.
        DataError: where there are fewer than two lesions.
    """
    count = len(predictions)
    whole = Decisions(
        probs=np.empty((count, NUM_CLASSES)),
        sets={kind: np.zeros((count, NUM_CLASSES), dtype=np.bool_) for kind in _KINDS},
        accepted={},
        positive={},
    )
    positive: dict[str, list[tuple[Rows, Rows]]] = {}
    accepted: dict[RuleKind, list[tuple[Rows, Rows]]] = {}
    masks = list(_folds(predictions, folds, seed))
    for held_out in masks:
        fitted = _fit(_rows(predictions, ~held_out), alpha, max_error)
        part = fitted.decide(predictions.logits[held_out])
        whole.probs[held_out] = part.probs
        for kind in _KINDS:
            whole.sets[kind][held_out] = part.sets[kind]
        for rule in (kind for kind in _RULES if fitted.rules[kind].limit is not None):
            accepted.setdefault(rule, []).append((held_out, part.accepted[rule]))
        for name, called in part.positive.items():
            positive.setdefault(name, []).append((held_out, called))
    return replace(
        whole,
        accepted={kind: _joined(parts) for kind, parts in accepted.items() if len(parts) == len(masks)},
        positive={name: _joined(parts) for name, parts in positive.items() if len(parts) == len(masks)},
    )


def _fit(predictions: Predictions, alpha: float, max_error: float) -> Calibration:
    """Everything but the log loss."""
    if not len(predictions):
        raise DataError("expected predictions of val to calibrate on; found none", "Choose a split that has val rows.")
    labels, lesions = predictions.label, predictions.lesion_id
    temperature = fit_temperature(predictions.logits, labels)
    probs = scaled_softmax(predictions.logits, temperature)
    sets = {kind: fit_sets(labels, probs, lesions, kind=kind, alpha=alpha) for kind in _KINDS}
    confidence, sizes = confidence_sizes(probs, sets["class_conditional"].sets(probs))
    right = probs.argmax(axis=1) == labels
    return Calibration(
        temperature=temperature,
        class_prior=tuple(fit_class_prior(probs, labels).tolist()),
        split="val",
        n_images=len(predictions),
        n_lesions=len(set(lesions)),
        class_counts=tuple(np.bincount(labels, minlength=NUM_CLASSES).tolist()),
        operating_points=tuple(
            fit_threshold(*task_scores(labels, probs, task), question=question, goal=goal, level=level)
            for question, task in QUESTIONS.items()
            for goal, level in GOALS
        ),
        sets=sets,
        rules={kind: fit_rule(right, confidence, sizes, lesions, kind=kind, max_error=max_error) for kind in _RULES},
    )


def _candidates(predictions: Predictions, folds: int, seed: int) -> dict[str, Floats | None]:
    """Probabilities whose log loss is reported, cross-fitted but for `before`; None with fewer than two lesions."""
    found: dict[str, Floats | None] = {"before": predictions.probs, **dict.fromkeys(_CANDIDATES)}
    if len(set(predictions.lesion_id)) < 2:
        return found
    fitted = {name: np.empty_like(predictions.probs) for name in _CANDIDATES}
    for held_out in _folds(predictions, folds, seed):
        known, new = _rows(predictions, ~held_out), predictions.logits[held_out]
        temperature = fit_temperature(known.logits, known.label)
        prior = fit_class_prior(scaled_softmax(known.logits, temperature), known.label)
        scale, bias = fit_vector(known.logits, known.label)
        fitted["temperature"][held_out] = scaled_softmax(new, temperature)
        fitted["temperature_mix"][held_out] = correct_prior(
            scaled_softmax(new, temperature), prior, class_mix(np.bincount(known.label, minlength=NUM_CLASSES))
        )
        fitted["vector"][held_out] = softmax(new * scale + bias)
    return found | fitted


def _folds(predictions: Predictions, folds: int, seed: int) -> Iterator[Rows]:
    """Masks (N,) of the held-out images, one a fold; a lesion is never parted. As many folds as lesions at most."""
    lesions = len(set(predictions.lesion_id))
    if lesions < 2:
        raise DataError(
            f"cross-fitting needs at least 2 lesions; found {lesions}", "Judge another split with this calibration."
        )
    rows = zip(predictions.image_id, predictions.label, predictions.lesion_id, strict=True)
    catalog = Catalog(tuple(Row(image_id, Path(image_id), int(label), lesion) for image_id, label, lesion in rows))
    fold = fold_assignment(catalog, min(folds, lesions), seed, allow_missing_classes=True)
    for number in range(fold.max() + 1):
        yield fold == number


def _joined(parts: Sequence[tuple[Rows, Rows]]) -> Rows:
    """One column (N,) from masks (N,) of folds and the values of their rows."""
    whole = np.zeros(len(parts[0][0]), dtype=np.bool_)
    for rows, values in parts:
        whole[rows] = values
    return whole


def _rows(predictions: Predictions, wanted: Rows) -> Predictions:
    chosen = np.flatnonzero(wanted)
    return Predictions(
        tuple(predictions.image_id[i] for i in chosen),
        tuple(predictions.lesion_id[i] for i in chosen),
        predictions.label[chosen],
        predictions.logits[chosen],
    )
