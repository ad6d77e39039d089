"""Losses over logits (N, C); targets are labels (N,) or, for cross-entropy, class probabilities (N, C).

Class weights have mean 1 over the training images, and a loss is the sum over a batch divided by its size: unlike
torch's division by the batch's own weights, this makes the mean over several processes that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lentigo.core.config import LossConfig
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.sampling import class_weights

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig, train_labels: Tensor) -> Loss:
    """The configured loss; class weights and priors come from the training labels (N,) int64."""
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


def _on(weights: Tensor | None, logits: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(logits)
