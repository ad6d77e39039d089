"""Losses over logits (N, C); targets are labels (N,) or, for cross-entropy, class probabilities (N, C).

Class weights have mean 1 over the images that can be drawn, and a loss is the sum over a batch divided by its size:
unlike torch's division by the batch's own weights, this makes the mean over several processes that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lentigo.core.config import LossConfig, Strength
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.sampling import class_weights

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig, train_labels: Tensor) -> Loss:
    """The configured loss; class weights and priors come from the labels (N,) int64 of all images that can be drawn."""
    labels = train_labels.cpu().numpy()
    weights: Tensor | None = None
    if config.class_weights != "none":
        weights = torch.from_numpy(class_weights(labels, config.class_weights)).float()
    if config.kind == "focal":
        return lambda logits, target: focal_loss(logits, target, config.focal_gamma, _on(weights, logits))
    if config.kind == "logit_adjusted":
        counts = torch.bincount(train_labels.cpu(), minlength=NUM_CLASSES).clamp_min(1).float()
        shift = config.logit_adjustment * (counts / counts.sum()).log()
        return lambda logits, target: cross_entropy(
            logits + shift.to(logits), target, config.label_smoothing, _on(weights, logits)
        )
    return lambda logits, target: cross_entropy(logits, target, config.label_smoothing, _on(weights, logits))


def cross_entropy(logits: Tensor, target: Tensor, smoothing: float, weights: Tensor | None = None) -> Tensor:
    """Sum of the weighted, label-smoothed cross-entropies over N images, divided by N."""
    total = functional.cross_entropy(logits, target, weights, label_smoothing=smoothing, reduction="sum")
    return total / len(logits)


def focal_loss(logits: Tensor, target: Tensor, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Mean of -w_y (1 - p_y)^gamma log p_y (Lin et al., arXiv 1708.02002, eq. 5)."""
    log_probs = functional.log_softmax(logits, dim=1)
    log_p = log_probs.gather(1, target[:, None]).squeeze(1)
    # With gamma < 1 the gradient at p = 1 is 0 / 0; the floor keeps it finite.
    loss = -((1 - log_p.exp()).clamp_min(1e-12) ** gamma) * log_p
    if weights is not None:
        loss = loss * weights[target]
    return loss.mean()


def distillation_loss(logits: Tensor, teacher_probs: Tensor, temperature: float) -> Tensor:
    """Mean over N images of T^2 KL(teacher || student at temperature T), Hinton et al., arXiv 1503.02531.

    `teacher_probs` (N, C) are softened already; T^2 keeps the gradients' size independent of T.
    """
    log_probs = functional.log_softmax(logits / temperature, dim=1)
    return functional.kl_div(log_probs, teacher_probs, reduction="batchmean") * temperature**2


def prior_shift(
    train_labels: NDArray[np.int64], drawn: NDArray[np.float64], loss_weights: Strength, tau: float
) -> Tensor:
    """What prior correction adds to the logits: -tau log q, centred, (7,) float32.

    q is the class prior that training presented: the probabilities (N,) with which images are drawn, summed by
    class, times the loss's class weights, which `build_loss` counts over the images that can be drawn (Menon et al.,
    arXiv 2007.07314, eq. 9). Classes that are never drawn are left alone.
    """
    shares = np.bincount(train_labels, weights=drawn, minlength=NUM_CLASSES)
    presented = shares * class_weights(train_labels[drawn > 0], loss_weights)
    seen = presented > 0
    shift = np.zeros(NUM_CLASSES)
    shift[seen] = -tau * np.log(presented[seen] / presented.sum())
    shift[seen] -= shift[seen].mean()
    return torch.from_numpy(shift).float()


def _on(weights: Tensor | None, logits: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(logits)
