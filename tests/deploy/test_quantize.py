"""int8: what is rounded, what is not, and how the layers are put in order."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from lentigo.data.preprocess import Preprocess
from lentigo.deploy.graph_session import GraphSession
from lentigo.deploy.onnx_graph import export_graph
from lentigo.deploy.quantize import Quantizer, correct_shift, layer_errors
from lentigo.models.checkpoint import ModelSpec

from .exportable import NAME, TinyNetwork, known_tiny

SIZE = 32


@pytest.fixture(scope="module")
def squares() -> NDArray[np.uint8]:
    """Smooth blobs of colour: (24, 32, 32, 3)."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (24, 4, 4, 3))
    return np.kron(coarse, np.ones((1, 8, 8, 1), np.int64)).astype(np.uint8)


@pytest.fixture(scope="module")
def quantizer(squares: NDArray[np.uint8]) -> Quantizer:
    torch.manual_seed(0)
    network = TinyNetwork(7, 0.0)
    network.train()(torch.randn(64, 3, SIZE, SIZE))  # sensible statistics for BatchNorm
    with torch.no_grad():
        network.classifier[1].weight *= 4.0
    with known_tiny():
        spec = ModelSpec(architecture=NAME, preprocess=Preprocess(resize_steps_px=(SIZE,)))
        graph = export_graph(network.eval(), spec)
    said = io.StringIO()
    with redirect_stdout(said):
        found = Quantizer.calibrate(graph, squares)
    assert said.getvalue() == "", "stdout may be a result in JSON"
    return found


def weights_of(graph: bytes) -> dict[str, NDArray[np.int8]]:
    """Names of the int8 weights of convolutions and products."""
    tensors = {one.name: one for one in onnx.load_model_from_string(graph).graph.initializer}
    return {
        name: numpy_helper.to_array(one)
        for name, one in tensors.items()
        if one.data_type == onnx.TensorProto.INT8 and name.endswith("quantized")
    }


def test_layers_have_the_networks_names(quantizer: Quantizer) -> None:
    assert [layer.name for layer in quantizer.layers] == [
        "features.0.0",
        "features.1.0",
        "features.2.0",
        "classifier.1",
    ]
    assert [layer.operator for layer in quantizer.layers] == ["Conv", "Conv", "Conv", "Gemm"]


def test_weights_have_a_scale_a_channel(quantizer: Quantizer) -> None:
    graph = quantizer.quantize()
    tensors = {one.name: numpy_helper.to_array(one) for one in onnx.load_model_from_string(graph).graph.initializer}
    weights = weights_of(graph)
    assert len(weights) == 4
    for name, values in weights.items():
        assert tensors[name.replace("quantized", "scale")].shape == values.shape[:1]
        assert np.abs(values.reshape(len(values), -1)).max(axis=1).min() >= 126, "each channel uses its own range"


def test_pixels_are_normalised_in_float(quantizer: Quantizer) -> None:
    """Between the input and the first rounding lie scaling, normalisation and the change of layout."""
    nodes = list(onnx.load_model_from_string(quantizer.quantize()).graph.node)
    makers = {output: node for node in nodes for output in node.output}
    firsts = [node for node in nodes if node.op_type == "QuantizeLinear" and _reaches_pixels(node, makers)]
    assert [makers[node.input[0]].op_type for node in firsts] == ["Div"]


def _reaches_pixels(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether only float operations stand between the input and this node."""
    name = node.input[0]
    while name in makers:
        maker = makers[name]
        if maker.op_type == "DequantizeLinear":
            return False
        name = maker.input[0]
    return name == "pixels"


def test_int8_is_close_but_not_the_same(quantizer: Quantizer, squares: NDArray[np.uint8]) -> None:
    floats, rounded = (
        GraphSession.open(graph, "graph").logits(squares) for graph in (quantizer.graph, quantizer.quantize())
    )
    error = np.sqrt(np.mean((floats - rounded) ** 2)) / np.std(floats - floats.mean(axis=1, keepdims=True))
    assert 1e-4 < error < 0.2


def test_layers_that_stay_in_float(quantizer: Quantizer) -> None:
    kept = quantizer.layers[1]
    names = set(weights_of(quantizer.quantize(kept_float=[kept.node])))
    assert len(names) == 3
    assert not any(kept.name in name for name in names)
    (alone,) = weights_of(quantizer.quantize(only=[kept.node]))
    assert kept.name in alone
    everything = [layer.node for layer in quantizer.layers]
    assert not weights_of(quantizer.quantize(kept_float=everything))


def test_the_spoilt_layer_is_the_worst(quantizer: Quantizer, squares: NDArray[np.uint8]) -> None:
    """One weight far out takes the steps from all others of its channel."""
    model = onnx.load_model_from_string(quantizer.graph)
    weight = next(one for one in model.graph.initializer if one.name.endswith("features.2.0.weight"))
    values = numpy_helper.to_array(weight).copy()
    values[:, 0, 0, 0] = 300.0 * np.abs(values).max()
    # The channel that it would multiply is silent, so that the float logits stay as they are.
    previous = next(one for one in model.graph.initializer if one.name.endswith("features.1.0.weight"))
    silent, bias_name = numpy_helper.to_array(previous).copy(), f"{previous.name}_bias"
    bias = next(one for one in model.graph.initializer if one.name == bias_name)
    quiet = numpy_helper.to_array(bias).copy()
    silent[0], quiet[0] = 0.0, 0.0
    for tensor, changed in ((weight, values), (previous, silent), (bias, quiet)):
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    spoilt = Quantizer.calibrate(model.SerializeToString(), squares)
    errors = layer_errors(spoilt, squares[:8])
    assert [one.error for one in errors] == sorted((one.error for one in errors), reverse=True)
    assert {one.layer for one in errors} == set(spoilt.layers)
    assert errors[0].layer.name == "features.2.0"
    assert errors[0].error > 5 * errors[1].error


def test_graphs_are_in_order(quantizer: Quantizer) -> None:
    """As ONNX asks and some runtimes rely on."""
    onnx.checker.check_model(onnx.load_model_from_string(quantizer.quantize()))


def test_mean_error_is_taken_off(quantizer: Quantizer, squares: NDArray[np.uint8]) -> None:
    rounded = quantizer.quantize()
    corrected, shift = correct_shift(quantizer, rounded, squares)
    floats, before, after = (
        GraphSession.open(graph, "graph").logits(squares) for graph in (quantizer.graph, rounded, corrected)
    )
    np.testing.assert_allclose(after - before, np.broadcast_to(shift, after.shape), atol=1e-5)
    np.testing.assert_allclose((after - floats).mean(axis=0), 0.0, atol=1e-5)
    assert np.abs((before - floats).mean(axis=0)).max() > 1e-4
    features = GraphSession.open(corrected, "graph").feature_maps(squares)
    np.testing.assert_array_equal(features, GraphSession.open(rounded, "graph").feature_maps(squares))
