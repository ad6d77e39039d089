"""The evaluation contract: how one decoded image becomes the network's input.

It travels with the weights and every runtime repeats it, so it is numpy and pillow only.
Pillow's resize filters are the definition; torchvision's transforms on pillow images give the same numbers.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from lentigo.core.config import PreprocessConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Positive = Annotated[float, Field(gt=0)]


class Preprocess(PreprocessConfig):
    """Colour mode, sizes, resize rule and normalisation, applied in that order.

    `gray` converts with ITU-R 601 luma and stacks the channel three times. `resize_steps_px` are successive
    squares, the last one is the input size. `squash` ignores the aspect ratio; `crop` first resizes the shorter
    side to the first step and cuts the central square. Keys and ranges are those of the recipe's section.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD

    @property
    def input_size_px(self) -> int:
        """Side of the square network input."""
        return self.resize_steps_px[-1]

    @property
    def _resample(self) -> Image.Resampling:
        return Image.Resampling.BILINEAR if self.interpolation == "bilinear" else Image.Resampling.BICUBIC

    def first_step(self, image: Image.Image) -> Image.Image:
        """Colour mode and first resize: mode L or RGB, a square of `resize_steps_px[0]`.

        Augmentation acts on this image, and it is what the training cache holds.
        """
        mode = "L" if self.color_mode == "gray" else "RGB"
        image = image if image.mode == mode else image.convert(mode)  # which would copy even where nothing changes
        size = self.resize_steps_px[0]
        if self.resize_rule == "crop":
            image = _shorter_side_crop(image, size, self._resample)
        return image if image.size == (size, size) else image.resize((size, size), self._resample)

    def remaining_steps(self, image: Image.Image, size_px: int | None = None) -> Image.Image:
        """The later resizes, applied to the result of `first_step`; `size_px` replaces the last size."""
        last = self.input_size_px if size_px is None else size_px
        for size in (*self.resize_steps_px[1:-1], last):
            image = image if image.size == (size, size) else image.resize((size, size), self._resample)
        return image

    def finished_square(self, first_step: Image.Image) -> NDArray[np.uint8]:
        """(S, S, 3) uint8 of the result of `first_step`, gray stacked three times: what exported graphs take."""
        square = np.asarray(self.remaining_steps(first_step))
        return np.stack([square] * 3, axis=-1) if square.ndim == 2 else square

    def to_input(self, image: Image.Image) -> NDArray[np.float32]:
        """Pixels of a finished square as (3, S, S) float32: scaled to [0, 1], stacked if gray, normalised."""
        pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
        channels = np.broadcast_to(pixels, (3, *pixels.shape)) if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        mean = np.asarray(self.mean, dtype=np.float32)[:, None, None]
        std = np.asarray(self.std, dtype=np.float32)[:, None, None]
        return np.ascontiguousarray((channels - mean) / std)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """A decoded image of any size and mode as (3, S, S) float32."""
        return self.to_input(self.remaining_steps(self.first_step(image)))


def _shorter_side_crop(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Resize the shorter side to `size` and cut the central square; integer rules as in torchvision."""
    width, height = image.size
    portrait = width <= height
    resized = (size, int(size * height / width)) if portrait else (int(size * width / height), size)
    if image.size != resized:
        image = image.resize(resized, resample)
    left = round((resized[0] - size) / 2.0)
    top = round((resized[1] - size) / 2.0)
    return image.crop((left, top, left + size, top + size))
