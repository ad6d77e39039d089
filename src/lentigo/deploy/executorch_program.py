"""A network as an ExecuTorch program for Android and iOS, its arithmetic by XNNPACK on the processor.

The batch is one image: with an open number of images the program is cut in two at the head, and a phone shows one
image anyway. Channel order inside is XNNPACK's own affair; the input is the pixel square as it lies in memory.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lentigo.core.errors import ConfigError, MissingExtraError
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.deploy.onnx_graph import PixelGraph
from lentigo.models.checkpoint import ModelSpec

_METHOD = "forward"


def require_executorch() -> None:
    """Raise MissingExtraError without the package executorch."""
    if find_spec("executorch") is None:
        raise MissingExtraError("executorch", "executorch")


def lower_program(network: nn.Module, spec: ModelSpec) -> bytes:
    """The content of a .pte file: pixels (1, S, S, 3) uint8 -> logits (1, 7), feature map (1, D, H, W), float32.

    Raises:
        ConfigError: for a network of which XNNPACK takes no part.
        MissingExtraError: without executorch.
    """
    require_executorch()
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    size = spec.preprocess.input_size_px
    pixels = torch.zeros((1, size, size, 3), dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and ExecuTorch about themselves
        program = torch.export.export(PixelGraph(network, spec).eval(), (pixels,), strict=False)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    if not _delegates(lowered.exported_program().graph):
        raise ConfigError(
            f"{spec.architecture}: expected layers that XNNPACK can compute; found none",
            "Export a convolutional network, or export it to onnx.",
        )
    return bytes(lowered.to_executorch().buffer)


class ProgramSession:
    """A program opened in ExecuTorch's own runtime; not for several threads at once."""

    def __init__(self, program: bytes) -> None:
        require_executorch()
        from executorch.runtime import Runtime

        # The method reads from the program, and the program from its bytes: both must outlive the calls.
        self._content = program
        self._program = Runtime.get().load_program(program)
        self._method = self._program.load_method(_METHOD)

    def logits(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, 7) of finished squares (N, S, S, 3), one after the other."""
        found = np.empty((len(squares), NUM_CLASSES), np.float32)
        for number, square in enumerate(squares):
            found[number] = self._method.execute([torch.from_numpy(square[None].copy())])[0].numpy()[0]
        return found


def _delegates(graph: Any) -> int:
    """How many parts of the program a backend computes."""
    return sum(getattr(node.target, "__name__", "") == "executorch_call_delegate" for node in graph.nodes)
