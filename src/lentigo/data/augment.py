"""Random changes of training images, drawn from torch's global generator (the data set seeds it per draw).

One affine warp carries rotation, shift and zoom, so that the image is interpolated once. Pixels from outside the
frame take the mean colour of its border: black corners would imitate the dark rim of a dermatoscope.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as warp

from lentigo.core.config import AugmentConfig


class Augment:
    """Pillow image in, pillow image of the same mode and size out."""

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config

    def __call__(self, image: Image.Image) -> Image.Image:
        """One random variant of `image` (mode L or RGB)."""
        image = self._lose_detail(image)
        image = self._flip(image)
        image = self._warp(image)
        if self.config.crop_min_area < 1:
            area, ratio = [self.config.crop_min_area, 1.0], [0.8, 1.25]
            top, left, height, width = RandomResizedCrop(image.size, area, ratio).make_params([image]).values()
            image = warp.resized_crop(image, top, left, height, width, [image.height, image.width])
        return self._color(image)

    def _lose_detail(self, image: Image.Image) -> Image.Image:
        """Sources of different resolution must not be told apart by sharpness: it would stand for their class mix."""
        if self.config.min_resolution == 1 or torch.rand(()) < 0.5:
            return image
        factor = _uniform(self.config.min_resolution, 1.0)
        small = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
        return small.resize(image.size, Image.Resampling.BILINEAR)

    def _flip(self, image: Image.Image) -> Image.Image:
        if torch.rand(()) < self.config.horizontal_flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if torch.rand(()) < self.config.vertical_flip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return image

    def _warp(self, image: Image.Image) -> Image.Image:
        config = self.config
        if not (config.rotation_degrees or config.shift or config.zoom):
            return image
        angle = _uniform(-config.rotation_degrees, config.rotation_degrees)
        shift = [round(_uniform(-config.shift, config.shift) * side) for side in image.size]
        scale = _uniform(1 - config.zoom, 1 + config.zoom)
        warped: Image.Image = warp.affine(
            image,
            angle=angle,
            translate=shift,
            scale=scale,
            shear=[0.0, 0.0],
            interpolation=warp.InterpolationMode.BILINEAR,
            fill=_border_color(image),
        )
        return warped

    def _color(self, image: Image.Image) -> Image.Image:
        config = self.config
        if config.brightness:
            image = warp.adjust_brightness(image, _factor(config.brightness))
        if config.contrast:
            image = warp.adjust_contrast(image, _factor(config.contrast))
        if config.saturation and image.mode == "RGB":
            image = warp.adjust_saturation(image, _factor(config.saturation))
        if config.hue and image.mode == "RGB":
            image = warp.adjust_hue(image, _uniform(-config.hue, config.hue))
        if config.grayscale and image.mode == "RGB" and torch.rand(()) < config.grayscale:
            image = image.convert("L").convert("RGB")
        return image


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _factor(strength: float) -> float:
    return _uniform(max(0.0, 1 - strength), 1 + strength)


def _border_color(image: Image.Image) -> list[float]:
    """Mean of the outermost pixels, one value per channel, 0..255."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return [float(round(value)) for value in np.atleast_1d(border.mean(axis=0))]
