"""Where a model looked, without torch: class activation maps from the exported feature map and its linear head.

The map of class c is the sum over channels k of weight[c, k] * feature_map[k] (Zhou et al., CVPR 2016). For a head that
is mean -> linear the gradient of a logit by a channel is that weight, the same at every place, so this is Grad-CAM
(Selvaraju et al., ICCV 2017) but for a positive factor: the maps of `lentigo explain`, in one matrix product.

As there, a map is the mean of that of the image and of the image turned by 180 degrees, turned back: strided
convolutions look half a cell to one side. Other views of test-time augmentation are left aside. A map is as coarse as
the feature map (7 x 7 at 224 px), and a map on the lesion does not mean that the answer rests on good reasons.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lentigo.core.errors import CheckpointError, ConfigError, DataError
from lentigo.core.taxonomy import parse_label
from lentigo.deploy.classifier import Classifier, Pixels

Heat = NDArray[np.float32]

OPACITY = 0.65
_COLORS = np.array([(46, 20, 96), (44, 84, 152), (36, 140, 148), (104, 190, 104), (250, 226, 70)], dtype=np.float32)
"""Even steps from no heat to the most: dark violet, blue, sea green, green, yellow. The brightness rises all the way,
so that it can be read in gray and without red-green vision, and skin has few of these colours."""


def activation_maps(classifier: Classifier, pixels: Pixels, codes: Sequence[str]) -> Heat:
    """What speaks for a class in each image, (N, H, W) in 0..1 on the feature map's grid; the most is 1.

    pixels: (N, S, S, 3) uint8 of `Classifier.prepare`, N > 0; `codes`: N classes, one an image. A map is all 0 where
    nothing speaks for the class.

    Raises:
        ConfigError: where the model's head is not a mean and a linear layer.
        DataError: for an unknown class, or where the arrays do not fit each other.
        CheckpointError: where the exported head does not fit the graph.
    """
    weights = _head_weights(classifier)
    if len(codes) != len(pixels):
        raise DataError(
            f"expected one class an image, {len(pixels)}; found {len(codes)}", "Pass as many codes as images."
        )
    turned = classifier.feature_maps(pixels[:, ::-1, ::-1])[:, :, ::-1, ::-1]
    features = (classifier.feature_maps(pixels) + turned) / np.float32(2)
    if features.ndim != 4 or features.shape[1] != weights.shape[1]:
        raise CheckpointError(
            f"the head of {classifier.spec.name} has {weights.shape[1]} channels; its feature map {features.shape}",
            "Export the run again.",
        )
    chosen = weights[[parse_label(code) for code in codes]]
    evidence = np.maximum(np.einsum("nk,nkhw->nhw", chosen, features), np.float32(0))
    highest = evidence.max(axis=(1, 2), keepdims=True)
    heat: Heat = np.divide(evidence, highest, out=np.zeros_like(evidence), where=highest > 0)
    return heat


def overlay(image: Image.Image, heat: Heat) -> Image.Image:
    """An image of any size and mode with its heat (H, W) in 0..1 laid over it, in mode RGB at the image's size.

    The heat is stretched over the whole image, bilinear. Opacity follows it: where nothing spoke for the class the
    image is left alone.
    """
    stretched = Image.fromarray(np.asarray(heat, dtype=np.float32)).resize(image.size, Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(stretched), 0.0, 1.0)[..., None]
    opacity = np.float32(OPACITY) * strength
    picture = np.asarray(image.convert("RGB"), dtype=np.float32)
    mixed = (1 - opacity) * picture + opacity * color(strength[..., 0])
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def activation_overlay(classifier: Classifier, pixels: Pixels, code: str) -> Image.Image:
    """One finished square (S, S, 3) uint8, as the network sees it, with the evidence for a class laid over it.

    Raises:
        as `activation_maps`.
    """
    return overlay(Image.fromarray(pixels), activation_maps(classifier, pixels[None], (code,))[0])


def color(strength: Heat) -> NDArray[np.float32]:
    """Colours (..., 3) in 0..255 of numbers (...) in 0..1."""
    place = strength * (len(_COLORS) - 1)
    channels = [np.interp(place, np.arange(len(_COLORS)), _COLORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _head_weights(classifier: Classifier) -> NDArray[np.float32]:
    """(7, D)."""
    spec = classifier.spec
    if not spec.head_weight:
        raise ConfigError(
            f"{spec.name} ({spec.architecture}) has no linear layer right on its feature map, so that a map of a class "
            "needs gradients, which the exported graph has not",
            "Use `lentigo explain RUN` on the run that it was exported from.",
        )
    return np.asarray(spec.head_weight, dtype=np.float32)
