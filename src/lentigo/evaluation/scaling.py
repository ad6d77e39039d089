"""Probabilities from logits: temperature and vector scaling, and the correction to another mix of classes.

Shapes: N images, C classes; logits (N, C) before softmax; labels (N,) int64; probs (N, C) float64, rows sum to 1.
Only fitting needs scipy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import ConfigError
from lentigo.core.predictions import softmax
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.evaluation.metrics import Floats, Labels

Logits = NDArray[np.floating]


def scaled_softmax(logits: Logits, temperature: float) -> Floats:
    """softmax(logits / temperature) in float64, (N, C): float32 logits are not rounded a second time."""
    return softmax(logits.astype(np.float64) / temperature)


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature T > 0 that minimises the log loss of softmax(logits / T) on N > 0 images.

    With b = 1 / T the loss is convex (a log-sum-exp of linear functions, less one). b - log b - 1, least at b = 1,
    is added once for all images: as much as one image, so that T stays above 0 where every answer is right, finite
    where every answer is wrong, and near 1 where logits or images say little. It leaves one root of the gradient
    sum(E[z] - z_true) + 1 - 1/b, where E is the mean under softmax(b z). It lies between 1 / (N R + 1), R the largest
    range of a row, since E[z] - z_true <= R, and N log C + 1, since E[z] >= max z - log(C) / b.
    """
    from scipy.optimize import brentq  # the runtime applies calibrations without scipy

    values = logits.astype(np.float64)
    count, num_classes = values.shape
    values = values - values.max(axis=1, keepdims=True)
    of_truth = values[np.arange(count), labels]

    def gradient(inverse: float) -> float:
        expected = (softmax(inverse * values) * values).sum(axis=1)
        return float((expected - of_truth).sum() + 1.0 - 1.0 / inverse)

    least = 1.0 / (count * float(np.ptp(values, axis=1).max()) + 1.0)
    # A hair outside: at the very bounds rounding may turn the sign.
    return 1.0 / float(brentq(gradient, 0.999 * least, 1.001 * (count * np.log(num_classes) + 1.0)))


def fit_vector(logits: Logits, labels: Labels, *, free_scale: bool = True) -> tuple[Floats, Floats]:
    """Scale and bias (C,) each that minimise the log loss of softmax(scale * logits + bias) (Guo et al., 2017).

    Convex. Half the squared distance to scale 1 and bias 0 is added once for all images: it keeps the parameters of
    absent classes finite and chooses among biases that differ by a constant. Without `free_scale` the scale stays 1.
    """
    from scipy.optimize import minimize

    values = logits.astype(np.float64)
    count, num_classes = values.shape
    rows = np.arange(count)

    def parts(parameters: Floats) -> tuple[Floats, Floats]:
        scale = parameters[num_classes:] if free_scale else np.ones(num_classes)
        return scale, parameters[:num_classes]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        scale, bias = parts(parameters)
        shifted = values * scale + bias
        penalty = 0.5 * ((scale - 1.0) ** 2).sum() + 0.5 * (bias**2).sum()
        total = (np.logaddexp.reduce(shifted, axis=1) - shifted[rows, labels]).sum() + penalty
        error = softmax(shifted)
        error[rows, labels] -= 1.0
        slope = error.sum(axis=0) + bias
        if free_scale:
            slope = np.concatenate([slope, (error * values).sum(axis=0) + scale - 1.0])
        return total / count, slope / count

    start = np.concatenate([np.zeros(num_classes), np.ones(num_classes if free_scale else 0)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9})
    return parts(found.x)


def fit_class_prior(probs: Floats, labels: Labels) -> Floats:
    """The mix of classes (C,) that probabilities speak of, from images of which the true mix is known.

    Bayes: at the images' own mix the right probabilities are probs * mix / prior. So the bias that fits log probs to
    the labels best is log(mix / prior). A model with a full prior correction gives about 1/7 each, one without the
    mix that it was trained on. What val lacks it cannot tell: see `class_mix` and `fit_vector`.
    """
    _, bias = fit_vector(np.log(np.maximum(probs, np.finfo(np.float64).tiny)), labels, free_scale=False)
    prior: Floats = softmax(np.log(class_mix(np.bincount(labels, minlength=probs.shape[1]))) - bias)
    return prior


def class_mix(counts: NDArray[np.integer]) -> Floats:
    """Shares (C,) above 0 of images counted by class (C,), after one more of each."""
    shares: Floats = (counts + 1.0) / (counts + 1.0).sum()
    return shares


def correct_prior(probs: Floats, old: Sequence[float] | Floats, new: Sequence[float] | Floats) -> Floats:
    """Probabilities (N, C) for another mix of classes: p * new / old, normalised.

    It holds where only the mix differs: lesions of one class look alike in both places (Saerens, Latinne &
    Decaestecker, Neural Comput. 14, 2002).

    Raises:
        ConfigError: where `new` is not C shares above 0 that sum to 1.
    """
    shares = np.asarray(new, dtype=np.float64)
    if shares.shape != (probs.shape[1],) or not (shares > 0.0).all() or abs(shares.sum() - 1.0) > 1e-6:
        raise ConfigError(
            f"expected {probs.shape[1]} shares above 0 that sum to 1; found {list(new)}",
            f"Give the classes in the order {', '.join(CLASS_CODES)}.",
        )
    weighted = probs * (shares / np.asarray(old))
    corrected: Floats = weighted / weighted.sum(axis=1, keepdims=True)
    return corrected
