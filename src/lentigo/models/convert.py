"""Weights under the names of another package, renamed to those of the network that Lentigo builds."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from lentigo.core.errors import CheckpointError, first_five

LITE0 = "timm:tf_efficientnet_lite0"
"""timm's twin of the network in the package efficientnet-lite-pytorch.

Both pad as TensorFlow does and have a BatchNorm epsilon of 1e-3. On 200 photographs, one of each fifth ImageNet
class, its file has top-1 0.845 and loss 0.78 in this network, 0.81 and 1.02 in timm's efficientnet_lite0 (0.815 and
0.92 with that epsilon).
"""

_STAGE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks a stage (Tan & Le, arXiv 1905.11946, table 1); the other package numbers them through."""
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# The first block does not expand, and timm numbers its layers from what is there.
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLACES = tuple((stage, block) for stage, depth in enumerate(_STAGE_DEPTHS) for block in range(depth))


def convert_names(tensors: Mapping[str, Tensor], architecture_name: str, own: Collection[str]) -> dict[str, Tensor]:
    """Tensors under the names `own` of this architecture's network; unchanged where they need no renaming.

    Raises:
        CheckpointError: where a tensor of a renamed file has no place in the network, or a place gets none.
    """
    if architecture_name != LITE0 or "_conv_stem.weight" not in tensors:
        return dict(tensors)
    renamed = {_lite0_name(name): tensor for name, tensor in tensors.items()}
    wrong = [f"{name} has no place" for name in sorted(renamed.keys() - set(own))]
    wrong += [f"{name} is missing" for name in sorted(set(own) - renamed.keys())]
    if wrong or len(renamed) != len(tensors):
        raise CheckpointError(
            f"the names of efficientnet-lite-pytorch do not fit {architecture_name}: {first_five(wrong)}",
            "Pass that package's file of efficientnet-lite0.",
        )
    return renamed


def _lite0_name(name: str) -> str:
    """timm's name of a tensor; its own where it has none, so that the check above names it."""
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if match is None:
        layer, _, part = name.partition(".")
        return f"{_OUTSIDE[layer]}.{part}" if layer in _OUTSIDE else name
    number, layers = int(match[1]), _OTHER_BLOCKS if int(match[1]) else _FIRST_BLOCK
    if number >= len(_PLACES) or match[2] not in layers:
        return name
    stage, block = _PLACES[number]
    return f"blocks.{stage}.{block}.{layers[match[2]]}.{match[3]}"
