"""Adds to an ONNX graph how near each picture is to the train pictures: what a server tells of not knowing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from striate.predictor.onnx_backend import COSINE
from striate.runs.doubt import Numbers

if TYPE_CHECKING:
    import onnx

# Of the operators that hold weights: those of convolutions and linear layers.
_WEIGHTED = ("Conv", "Gemm", "MatMul")


def add_cosine(model: onnx.ModelProto, kept: Numbers) -> bool:
    """Give a graph one more output, the cosine (N,) of each picture's nearest among `kept` (n, D); say whether it has.

    Compared is what the last layer takes, as `TorchBackend.features` and `runs.doubt.nearest` do. The graph is left as
    it is where no layer takes D features.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    shapes = {weight.name: list(weight.dims) for weight in graph.initializer}
    layers = [node for node in graph.node if node.op_type in _WEIGHTED and node.input[1] in shapes]
    if not layers or len(layers[-1].input) < 2:
        return False
    last, width = layers[-1], kept.shape[1]
    weight = shapes[last.input[1]]
    turned = any(entry.name == "transB" and entry.i for entry in last.attribute)
    if (weight[1] if last.op_type == "Conv" or turned else weight[0]) != width or len(weight) not in (2, 4):
        return False
    features, names = last.input[0], [f"striate_{COSINE}_{number}" for number in range(9)]
    constants: dict[str, np.ndarray] = {
        names[0]: np.array([2, 3], np.int64),
        names[1]: np.array([1], np.int64),
        names[2]: np.array(1e-12, np.float32),
        names[3]: np.ascontiguousarray(kept.T, np.float32),
    }
    if last.op_type == "Conv":  # maps averaged over their places: (N, D, h, w) -> (N, D)
        graph.node.append(helper.make_node("ReduceMean", [features, names[0]], [names[4]], keepdims=0))
        features = names[4]
    graph.node.extend(
        [
            helper.make_node("ReduceL2", [features, names[1]], [names[5]], keepdims=1),
            helper.make_node("Max", [names[5], names[2]], [names[6]]),
            helper.make_node("Div", [features, names[6]], [names[7]]),
            helper.make_node("MatMul", [names[7], names[3]], [names[8]]),  # -> (N, n)
            helper.make_node("ReduceMax", [names[8], names[1]], [COSINE], keepdims=0),
        ]
    )
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.output.append(helper.make_tensor_value_info(COSINE, TensorProto.FLOAT, ["N"]))
    return True
