"""A tiny exported model that onnx alone makes: what every runtime is tested with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.preprocess import Preprocess
from lentigo.data.synthetic import draw_lesion
from lentigo.deploy.exported import (
    FEATURE_MAP_NAME,
    INPUT_NAME,
    LOGITS_NAME,
    ExportedModel,
    OutlierLimit,
    Variant,
    VariantFiles,
)
from lentigo.deploy.graph_session import GraphSession
from lentigo.deploy.outlier_graph import with_outlier_distance
from lentigo.evaluation.fit_calibration import fit_calibration
from lentigo.evaluation.outliers import fit_gate, fit_statistics

TINY_SIZE_PX, TINY_CELLS, TINY_CHANNELS = 32, 8, 12
TINY_SEED = 5


def draw_weights() -> dict[str, NDArray[np.float32]]:
    """convolution (12, 3, 4, 4), stride 4, with no symmetry, so that every view has its own logits; head (7, 12)."""
    generator = np.random.default_rng(TINY_SEED)
    head = generator.normal(scale=0.4, size=(7, TINY_CHANNELS))
    return {
        "convolution": generator.normal(scale=0.35, size=(TINY_CHANNELS, 3, 4, 4)).astype(np.float32),
        "head_weight": (head - head.mean(axis=0)).astype(np.float32),
        "head_bias": generator.normal(scale=0.1, size=7).astype(np.float32),
    }


def tiny_graph(preprocess: Preprocess, weights: Mapping[str, NDArray[np.float32]]) -> bytes:
    """pixels -> normalised -> 4 x 4 convolution -> relu (the feature map) -> mean -> linear, as an ONNX file."""
    size = preprocess.input_size_px
    cells = size // 4
    constants = {
        "scale": np.float32(255.0) * np.asarray(preprocess.std, np.float32),
        "shift": np.asarray(preprocess.mean, np.float32) / np.asarray(preprocess.std, np.float32),
        **weights,
    }
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["values", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["normalised"]),
        helper.make_node("Transpose", ["normalised"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "convolution"], ["map"], strides=[4, 4]),
        helper.make_node("Relu", ["map"], [FEATURE_MAP_NAME]),
        helper.make_node("GlobalAveragePool", [FEATURE_MAP_NAME], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "head_weight", "head_bias"], [LOGITS_NAME], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["n", size, size, 3])],
        [
            helper.make_tensor_value_info(LOGITS_NAME, TensorProto.FLOAT, ["n", 7]),
            helper.make_tensor_value_info(FEATURE_MAP_NAME, TensorProto.FLOAT, ["n", TINY_CHANNELS, cells, cells]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # Readers of the oldest supported onnxruntime know these two versions.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tiny_predictions(seed: int, count: int = 500) -> Predictions:
    """Val predictions of a model that is right most of the time: enough for every threshold and rule."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 7
    logits = generator.normal(size=(count, 7)).astype(np.float32)
    logits[np.arange(count), labels] += 2.5
    names = tuple(f"val-{i}" for i in range(count))
    return Predictions(names, names, labels, logits)


def drawn_squares(preprocess: Preprocess, first_seed: int, count: int) -> NDArray[np.uint8]:
    """(N, S, S, 3) of drawn lesions, the classes in turn."""
    drawings = (draw_lesion(CLASS_CODES[i % 7], lesion_seed=first_seed + i, size_px=48) for i in range(count))
    return np.stack([preprocess.finished_square(preprocess.first_step(Image.fromarray(one))) for one in drawings])


def gated(graph: bytes, preprocess: Preprocess) -> tuple[bytes, OutlierLimit]:
    """The graph with the distance from drawn lesions, and a limit that three in four others of them pass."""
    features = GraphSession.open(graph, "tiny").feature_maps(drawn_squares(preprocess, 0, 42)).mean(axis=(2, 3))
    graph = with_outlier_distance(graph, fit_statistics(features, np.arange(42) % 7, components=4))
    distances = np.sort(GraphSession.open(graph, "tiny").outlier_distances(drawn_squares(preprocess, 100, 42)))
    gate = fit_gate("mahalanobis", distances, pass_rate=0.75)
    beyond = distances[distances > gate.threshold].tolist()
    return graph, OutlierLimit(threshold=gate.threshold, pass_rate=0.75, n=gate.n, beyond=tuple(beyond))


def write_tiny_model(folder: Path, preprocess: Preprocess, *, gate: bool = True, **changes: object) -> Path:
    """An export folder with both variants; fp32 is calibrated for 1 and 4 views, int8 for 1. `changes`: of the spec.

    Without `gate` no variant tells images of another kind, as in older exports.
    """
    folder.mkdir(parents=True)
    weights = draw_weights()
    rounded = weights | {"convolution": np.round(weights["convolution"] * 16) / np.float32(16)}
    calibrations = {
        views: fit_calibration(tiny_predictions(views), resamples=100).model_dump(mode="json") for views in (1, 4)
    }
    variants = {}
    for name, own, views in (("fp32", weights, ("1", "4")), ("int8", rounded, ("1",))):
        graph, limit = tiny_graph(preprocess, own), None
        if gate:
            graph, limit = gated(graph, preprocess)
        (folder / VariantFiles[name]).write_bytes(graph)
        variants[name] = Variant(
            file=VariantFiles[name],
            sha256=hashlib.sha256(graph).hexdigest(),
            size_bytes=len(graph),
            calibrations={one: calibrations[int(one)] for one in views},
            outlier_limit=limit,
        )
    spec = ExportedModel(
        name="tiny",
        architecture="tiny",
        preprocess=preprocess,
        opset=18,
        parameters=sum(value.size for value in weights.values()),
        macs=weights["convolution"].size * TINY_CELLS**2 + weights["head_weight"].size,
        head_weight=tuple(tuple(row) for row in weights["head_weight"].tolist()),
        head_bias=tuple(weights["head_bias"].tolist()),
        variants=variants,
        synthetic=True,
    )
    spec.model_copy(update=changes).save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_weights() -> dict[str, NDArray[np.float32]]:
    """The weights of the fp32 graph: convolution, head_weight, head_bias."""
    return draw_weights()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `export` of a run: RGB, squares of 48 and then 32 pixels."""
    run = tmp_path_factory.mktemp("tiny-run")
    return write_tiny_model(run / "export", Preprocess(resize_steps_px=(48, TINY_SIZE_PX)))


@pytest.fixture(scope="session")
def tiny_gray_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in gray with a centre crop, and without a linear head, any calibration or limit."""
    folder = tmp_path_factory.mktemp("tiny-gray") / "export"
    preprocess = Preprocess(color_mode="gray", resize_rule="crop", resize_steps_px=(TINY_SIZE_PX,))
    write_tiny_model(folder, preprocess, gate=False, head_weight=(), head_bias=())
    spec = ExportedModel.load(folder)
    bare = {name: variant.model_copy(update={"calibrations": {}}) for name, variant in spec.variants.items()}
    spec.model_copy(update={"variants": bare}).save(folder)
    return folder
