"""Images as tensors: the training view (augmented, seeded per draw) and the evaluation view (the contract alone)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lentigo.core.seeding import derive_seed
from lentigo.data.augment import Augment
from lentigo.data.cache import ImageSource
from lentigo.data.sampling import Draw


class Sample(NamedTuple):
    """image (3, S, S) float32 normalised; label 0..6; index into the catalogue."""

    image: Tensor
    label: int
    index: int  # type: ignore[assignment]


@dataclass(frozen=True)
class LesionDataset(Dataset[Sample]):  # type: ignore[misc]
    """Rows of an ImageSource in evaluation form, addressed by index."""

    images: ImageSource

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return self._sample(self.images[index], index)

    def _sample(self, first_step: Image.Image, index: int, size_px: int | None = None) -> Sample:
        preprocess = self.images.preprocess
        pixels = preprocess.to_input(preprocess.remaining_steps(first_step, size_px))
        return Sample(torch.from_numpy(pixels), self.images.catalog.rows[index].label, index)


@dataclass(frozen=True)
class TrainingDataset(LesionDataset):
    """The same rows, augmented; addressed by Draw, whose number alone decides the augmentation.

    `size_px` replaces the contract's input size for a phase of training at a smaller one.
    """

    augment: Augment
    seed: int
    size_px: int | None = None

    def __getitem__(self, draw: Draw) -> Sample:  # type: ignore[override]
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(derive_seed(self.seed, "augment", draw.number))
            image = self.augment(self.images[draw.index])
        return self._sample(image, draw.index, self.size_px)
