"""int8 by static quantisation: QuantizeLinear and DequantizeLinear around every layer, weights with a scale a channel.

The ranges of activations are those of training images of every class. Which layers may stay in float is decided from
`layer_errors`: how far the logits move where one layer alone is rounded. Scaling and normalising pixels stays float
always: 0..255 in 256 steps of another scale would only blur them.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from os import devnull
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lentigo.deploy.exported import INPUT_NAME, LOGITS_NAME
from lentigo.deploy.graph_session import GraphSession

CALIBRATION_IMAGES = 210
"""About 30 a class where classes are equal; each has at least ten, or all that it has."""
ERROR_IMAGES = 16
_LAYERS = ("Conv", "Gemm", "MatMul")
_OPERATORS = (*_LAYERS, "Clip", "Relu", "Reshape")
"""Beside the layers what follows them at once. Sums of residual branches and squeeze-excite products stay in float:
`layer_errors` does not measure them, and the sums of MobileNetV3 do not bear rounding."""
_PARAMETER = ".weight"
_BATCH = 16

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or matrix product: the node's name in the graph, that of its weights in the network, its kind."""

    node: str
    name: str
    operator: str


@dataclass(frozen=True, slots=True)
class LayerError:
    """Root mean square error of the logits where this layer alone is int8, over the spread of the logits."""

    layer: Layer
    error: float


@dataclass(frozen=True)
class Quantizer:
    """A float graph, its layers from input to output, and the ranges of its activations (onnxruntime's own table)."""

    graph: bytes
    layers: tuple[Layer, ...]
    ranges: Any

    @classmethod
    def calibrate(cls, graph: bytes, squares: Pixels) -> Quantizer:
        """Run squares (M, S, S, 3) through the graph and note the range of every activation."""
        from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

        with _work_folder(graph) as source, _silence():
            calibrator = create_calibrator(
                source,
                list(_OPERATORS),
                str(source.with_name("augmented.onnx")),
                calibrate_method=CalibrationMethod.MinMax,
            )
            for square in squares:
                # Read in parts: it keeps every activation of all that a reader gives.
                calibrator.collect_data(_Reader(square[None]))
            ranges = calibrator.compute_data()
        return cls(graph, _layers(graph), ranges)

    def quantize(self, *, kept_float: Collection[str] = (), only: Collection[str] = ()) -> bytes:
        """The int8 graph; `kept_float` names nodes that stay as they are, `only` the sole ones that do not."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

        with _work_folder(self.graph) as source, _silence():
            quantizer = QDQQuantizer(
                load_model_with_shape_infer(source),
                True,  # a scale a channel
                False,  # all 8 bits of a weight
                QuantType.QInt8,
                QuantType.QUInt8,  # most activations are not negative
                self.ranges,
                list(only),
                list(kept_float),
                list(_OPERATORS),
                {},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()  # as ONNX asks; it is left in disorder
            model = quantizer.model.model
        del model.metadata_props[:]
        return bytes(model.SerializeToString())


def layer_errors(
    quantizer: Quantizer, squares: Pixels, *, progress: Progress = lambda done, total: None
) -> tuple[LayerError, ...]:
    """The error that each layer alone causes on a few squares (M, S, S, 3), the worst first."""
    expected = GraphSession.open(quantizer.graph, "the float graph").logits(squares)
    spread = float(np.std(expected - expected.mean(axis=1, keepdims=True))) or 1.0
    found = []
    for number, layer in enumerate(quantizer.layers, start=1):
        session = GraphSession.open(quantizer.quantize(only=[layer.node]), layer.name)
        error = float(np.sqrt(np.mean((session.logits(squares) - expected) ** 2)))
        found.append(LayerError(layer, error / spread))
        progress(number, len(quantizer.layers))
    return tuple(sorted(found, key=lambda one: -one.error))


def correct_shift(quantizer: Quantizer, graph: bytes, squares: Pixels) -> tuple[bytes, tuple[float, ...]]:
    """The int8 graph with its mean error of each logit on squares (M, S, S, 3) taken off, and what was added (7).

    Rounding moves the logits of all images the same way to a part, which draws answers towards some classes (Nagel et
    al., ICCV 2019, who correct it layer by layer). Squares are training images, so that val stays a judge.
    """
    expected, found = (_mean_logits(one, squares) for one in (quantizer.graph, graph))
    shift = (expected - found).astype(np.float32)
    return _add_to_logits(graph, shift), tuple(shift.tolist())


def _mean_logits(graph: bytes, squares: Pixels) -> NDArray[np.float64]:
    session = GraphSession.open(graph, "a graph in the making")
    each = [session.logits(squares[start : start + _BATCH]) for start in range(0, len(squares), _BATCH)]
    mean: NDArray[np.float64] = np.concatenate(each).mean(axis=0, dtype=np.float64)
    return mean


def _add_to_logits(graph: bytes, shift: NDArray[np.float32]) -> bytes:
    import onnx

    model = onnx.load_model_from_string(graph)
    before = f"{LOGITS_NAME}_before_shift"
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [before if name == LOGITS_NAME else name for name in names]
    model.graph.initializer.append(onnx.numpy_helper.from_array(shift, "mean_error"))
    model.graph.node.append(onnx.helper.make_node("Add", [before, "mean_error"], [LOGITS_NAME], "shift_logits"))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class _Reader:
    """What onnxruntime's calibrators read inputs from; they ask for no more than these two methods."""

    def __init__(self, squares: Pixels) -> None:
        self._inputs = iter([{INPUT_NAME: squares}])

    def get_next(self) -> dict[str, Pixels] | None:
        return next(self._inputs, None)

    def __iter__(self) -> Iterator[dict[str, Pixels]]:
        return self._inputs


def _layers(graph: bytes) -> tuple[Layer, ...]:
    import onnx

    nodes = onnx.load_model_from_string(graph).graph.node
    return tuple(Layer(node.name, _weight_name(node.input), node.op_type) for node in nodes if node.op_type in _LAYERS)


def _weight_name(inputs: Collection[str]) -> str:
    """`features.3.conv.0` from the node's weights; the first input where none is named so."""
    names = [name for name in inputs if name.endswith(_PARAMETER)]
    return (names or list(inputs))[0].removeprefix("network.").removesuffix(_PARAMETER)


@contextmanager
def _work_folder(graph: bytes) -> Iterator[Path]:
    """The graph as a file: onnxruntime's tools want paths, and write more files beside it."""
    with tempfile.TemporaryDirectory(prefix="lentigo-int8-") as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(graph)
        yield path


@contextmanager
def _silence() -> Iterator[None]:
    """Their advice goes nowhere: stdout may be a result in JSON."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with Path(devnull).open("w", encoding="utf-8") as nothing, redirect_stdout(nothing):
            yield
    finally:
        logging.disable(before)
