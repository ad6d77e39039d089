"""The distance from the training images as a part of the graph, so that every runtime has it beside the logits.

The statistics become constants of the graph (0.4 MB): no runtime reads another file, or does the sum again.
"""

from __future__ import annotations

import numpy as np

from lentigo.deploy.exported import FEATURE_MAP_NAME, OUTLIER_NAME
from lentigo.evaluation.outliers import FeatureStatistics

_SHORTEST = 1e-30
"""Features of zeros stay zeros instead of becoming no number."""


def with_outlier_distance(graph: bytes, statistics: FeatureStatistics) -> bytes:
    """The graph with the output `outlier_distance` (N,) float32: `FeatureStatistics.distances` of the map's mean."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_model_from_string(graph)
    constants = {
        "space": np.array([2, 3]),
        "rows": np.array([1]),
        "last": np.array([2]),
        "shortest": np.array(_SHORTEST, np.float32),
        "means": statistics.means,
        "directions": statistics.directions,
        "variances": statistics.variances,
        "residual": np.array(statistics.residual, np.float32),
    }
    nodes = [
        ("ReduceMean", (FEATURE_MAP_NAME, "space"), "features", {"keepdims": 0}),
        ("ReduceL2", ("features", "rows"), "length", {"keepdims": 1}),
        ("Max", ("length", "shortest"), "divisor", {}),
        ("Div", ("features", "divisor"), "unit", {}),
        ("Unsqueeze", ("unit", "rows"), "each", {}),
        ("Sub", ("each", "means"), "away", {}),
        ("MatMul", ("away", "directions"), "along", {}),
        ("Mul", ("along", "along"), "along_squared", {}),
        ("Div", ("along_squared", "variances"), "along_weighed", {}),
        ("ReduceSum", ("along_weighed", "last"), "inside", {"keepdims": 0}),
        ("ReduceSumSquare", ("away", "last"), "whole", {"keepdims": 0}),
        ("ReduceSum", ("along_squared", "last"), "known", {"keepdims": 0}),
        ("Sub", ("whole", "known"), "rest", {}),
        ("Div", ("rest", "residual"), "outside", {}),
        ("Add", ("inside", "outside"), "distances", {}),
        ("ReduceMin", ("distances", "rows"), OUTLIER_NAME, {"keepdims": 0}),
    ]

    def own(value: str) -> str:
        return value if value in (FEATURE_MAP_NAME, OUTLIER_NAME) else f"outlier_{value}"

    model.graph.initializer.extend(numpy_helper.from_array(value, own(name)) for name, value in constants.items())
    model.graph.node.extend(
        helper.make_node(kind, [own(one) for one in inputs], [own(output)], name=own(f"{output}_node"), **attributes)
        for kind, inputs, output, attributes in nodes
    )
    count = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    model.graph.output.append(helper.make_tensor_value_info(OUTLIER_NAME, TensorProto.FLOAT, [count]))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
