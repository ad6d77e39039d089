"""A student with one linear map per teacher, and the loss that its features are judged by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.models.features import pooled_features
from lentigo.models.network import build_network, find_architecture, set_batch_norm_momentum
from lentigo.training.feature_teachers import normalization

BATCH_NORM_MOMENTUM = 0.1
"""MobileNetV3's own 0.01 leaves the statistics of a short training behind its weights."""


class Matcher(nn.Module):  # type: ignore[misc]
    """Images (N, 3, S, S) in [0, 1] -> for each teacher its standardised features (N, D) as the student guesses them.

    The linear maps are the regressors of FitNets (Romero et al., arXiv 1412.6550, section 2.2): they let the student
    be narrower than its teachers, and are thrown away afterwards.
    """

    def __init__(self, student: str, widths: Sequence[int]) -> None:
        super().__init__()
        architecture = find_architecture(student)
        self.student = build_network(student, NUM_CLASSES, 0.0)
        # The classifier has no part in this, and is not kept.
        for name, parameter in self.student.named_parameters():
            parameter.requires_grad_(not name.startswith(architecture.head_prefix))
        set_batch_norm_momentum(self.student, BATCH_NORM_MOMENTUM)
        mean, std = normalization(architecture, torch.device("cpu"))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.maps = nn.ModuleList(nn.Linear(_width(self.student), width) for width in widths)
        # What the features are compared with; filled from the teachers, and part of the saved state.
        for number, width in enumerate(widths):
            self.register_buffer(f"center_{number}", torch.zeros(width))
            self.register_buffer(f"scale_{number}", torch.ones(width))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Guesses, one tensor a teacher."""
        features = pooled_features(self.student, (images - self.mean) / self.std)
        return [linear(features) for linear in self.maps]

    def set_standardization(self, number: int, center: Tensor, scale: Tensor) -> None:
        """Take a teacher's mean and deviation (D,)."""
        self.get_buffer(f"center_{number}").copy_(center)
        self.get_buffer(f"scale_{number}").copy_(scale)

    def standardize(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Each teacher's features (N, D) with mean 0 and deviation 1 per dimension over clean images."""
        return [
            (feature - self.get_buffer(f"center_{number}")) / self.get_buffer(f"scale_{number}")
            for number, feature in enumerate(features)
        ]


def _width(student: nn.Module) -> int:
    """How many features the student has, from a look at one image; its state is left as it is."""
    student.eval()
    with torch.no_grad():
        width = pooled_features(student, torch.zeros(1, 3, 64, 64)).shape[1]
    student.train()
    return int(width)


def matching_loss(guesses: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Smooth L1 distance of standardised features (Girshick, arXiv 1504.08083, eq. 3), the mean over teachers.

    Pooled features have long tails; a square would let single images rule a batch.
    """
    losses = [functional.smooth_l1_loss(guess.float(), target) for guess, target in zip(guesses, targets, strict=True)]
    return torch.stack(losses).mean()


def explained_share(guesses: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    """How much closer the guesses come than the training images' mean, as a share of the squared distance.

    1 is perfect, 0 no better than that mean, which is 0 in standardised features; the mean over teachers.
    """
    shares = [
        1 - float((guess - target).square().sum() / target.square().sum().clamp_min(1e-12))
        for guess, target in zip(guesses, targets, strict=True)
    ]
    return sum(shares) / len(shares)


def mix_images(images: Tensor, alpha: float) -> Tensor:
    """Each image mixed with its neighbour in the batch by a share from Beta(alpha, alpha); 0 leaves them.

    Mixup without labels (Zhang et al., arXiv 1710.09412), as function matching uses it: teacher and student see the
    same mixture (Beyer et al., arXiv 2106.05237, section 3). Draws from torch's global generator.
    """
    if not alpha:
        return images
    share = torch.distributions.Beta(alpha, alpha).sample((len(images), 1, 1, 1)).to(images)
    # The smaller share is the neighbour's, so that every image remains the main part of its own mixture.
    return images.lerp(images.roll(1, dims=0), torch.minimum(share, 1 - share))
