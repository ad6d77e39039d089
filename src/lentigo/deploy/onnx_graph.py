"""A trained network as an ONNX graph that takes plain pixels, as `lentigo.deploy.exported` describes it."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lentigo.core.errors import ConfigError, MissingExtraError
from lentigo.deploy.exported import FEATURE_MAP_NAME, INPUT_NAME, LOGITS_NAME, METADATA_KEY
from lentigo.models.checkpoint import ModelSpec
from lentigo.models.network import find_architecture

OPSET = 18
"""That of torch's exporter itself, so that nothing is converted; int8 needs 13 or more for a scale a channel."""
LinearHead = tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]
_BATCH = "n"
_HEAD_TOLERANCE = 1e-4


class PixelGraph(nn.Module):  # type: ignore[misc]
    """Finished squares (N, S, S, 3) uint8, 0..255 -> logits (N, 7) and the last feature map (N, D, H, W), float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.network = network.eval()
        self.whole_body = hasattr(network, "forward_features") and hasattr(network, "forward_head")
        self.cam_layer = find_architecture(spec.architecture).cam_layer
        self.register_buffer("mean", torch.tensor(spec.preprocess.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(spec.preprocess.std)[:, None, None])

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The order of operations is that of `Preprocess.to_input`."""
        # Contiguous, or torch averages space by strides, which becomes a dozen nodes and a gather. Channels go first
        # before the arithmetic: onnxruntime took a seventh of MobileNetV2's time for three numbers along the last axis.
        images = pixels.permute(0, 3, 1, 2).contiguous().float()
        images = (images / 255.0 - self.mean) / self.std
        if self.whole_body:  # timm's networks
            features = self.network.forward_features(images)
            return self.network.forward_head(features), features
        kept: list[Tensor] = []
        layer = self.network.get_submodule(self.cam_layer)
        handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
        try:
            logits = self.network(images)
        finally:
            handle.remove()
        return logits, kept[0]


def export_graph(network: nn.Module, spec: ModelSpec) -> bytes:
    """The ONNX file (one, without metadata) of a network with its prior correction; any number of images N.

    Raises:
        ConfigError: for a network whose last layer before the head is no map (N, D, H, W).
    """
    import onnx

    graph, pixels = PixelGraph(network, spec).eval(), _squares(spec, 2)
    _check_feature_map(graph, pixels, spec)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself, a screen full
        program = torch.export.export(graph, (pixels,), dynamic_shapes=({0: torch.export.Dim(_BATCH)},), strict=False)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[LOGITS_NAME, FEATURE_MAP_NAME],
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    _clean(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def with_metadata(graph: bytes, text: str) -> bytes:
    """The same graph with `text` as its only metadata, under METADATA_KEY."""
    import onnx

    model = onnx.load_model_from_string(graph)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    return bytes(model.SerializeToString())


def linear_head(network: nn.Module, spec: ModelSpec) -> LinearHead:
    """Weight (7, D) and bias (7,) where the logits are those of the map's mean; both empty for any other head.

    That is tried on noise, not read off the network's structure: MobileNetV3 has a hidden layer before its last one.
    """
    graph = PixelGraph(network, spec).eval()
    head = network.get_submodule(find_architecture(spec.architecture).head)
    with torch.inference_mode():
        logits, features = graph(_squares(spec, 4))
        if not isinstance(head, nn.Linear) or features.ndim != 4 or features.shape[1] != head.in_features:
            return (), ()
        if not torch.allclose(head(features.mean(dim=(2, 3))), logits, atol=_HEAD_TOLERANCE, rtol=_HEAD_TOLERANCE):
            return (), ()
        bias = head.bias if head.bias is not None else torch.zeros(len(head.weight))
        return tuple(tuple(row) for row in head.weight.tolist()), tuple(bias.tolist())


def _squares(spec: ModelSpec, count: int) -> Tensor:
    size = spec.preprocess.input_size_px
    noise = np.random.default_rng(0).integers(0, 256, size=(count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(noise)


def _check_feature_map(graph: PixelGraph, pixels: Tensor, spec: ModelSpec) -> None:
    expected = find_architecture(spec.architecture).feature_dim
    with torch.inference_mode():
        found = tuple(graph(pixels)[1].shape)
    if len(found) != 4 or found[1] != expected:
        raise ConfigError(
            f"{spec.architecture}: expected a last feature map (N, {expected}, H, W); found {found}",
            "Export a convolutional network.",
        )


def _clean(model: Any) -> None:
    """Take out what the exporter notes of this machine's files, and call the number of images `n`."""
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    for noted in (model, graph, *graph.node, *graph.initializer, *values):
        del noted.metadata_props[:]
        noted.doc_string = ""
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for dimension in (dimension for value in values for dimension in value.type.tensor_type.shape.dim):
        if dimension.dim_param == batch:
            dimension.dim_param = _BATCH


def require_onnx() -> None:
    """Raise MissingExtraError without the packages that exporting needs."""
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "train")
