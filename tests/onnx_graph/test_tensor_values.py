"""Which node is the first that makes NaN or infinity."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.tensor_values import every_tensor, first_not_finite


def segment(nodes: list[onnx.NodeProto], given: str, result: str, **stored: np.ndarray) -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in (given, result)]
    weights = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_it_is_named_with_its_operator_and_file() -> None:
    first = segment([helper.make_node("Relu", ["x"], ["r"], name="relu")], "x", "r")
    second = segment(
        [
            helper.make_node("Div", ["r", "r"], ["d"], name="ratio"),
            helper.make_node("Neg", ["d"], ["y"], name="negative"),
        ],
        "r",
        "y",
    )
    files = {"segment-0.onnx": first.SerializeToString(), "segment-1.onnx": second.SerializeToString()}
    assert first_not_finite(files, {"x": np.float32([[0, 1]])}) == "node 'ratio' (Div) of segment-1.onnx"
    assert first_not_finite(files, {"x": np.float32([[2, 1]])}) == ""


def test_a_stored_infinity_is_not_reported() -> None:
    low = np.float32([-np.inf, 0])
    model = segment(
        [
            helper.make_node("Add", ["x", "low"], ["a"], name="mask"),
            helper.make_node("Softmax", ["a"], ["s"], name="softmax"),
            helper.make_node("Log", ["s"], ["y"], name="log"),
        ],
        "x",
        "y",
        low=low,
    )
    files = {"model.onnx": model.SerializeToString()}
    assert first_not_finite(files, {"x": np.float32([[1, 1]])}) == "node 'log' (Log) of model.onnx"


def test_an_infinity_in_a_constant_node_is_stored_too() -> None:
    """The exporter for opset 16 and 17 stores masks in such nodes."""
    low = numpy_helper.from_array(np.float32([-np.inf, 0]))
    model = segment(
        [
            helper.make_node("Constant", [], ["low"], name="stored", value=low),
            helper.make_node("Add", ["x", "low"], ["a"], name="mask"),
            helper.make_node("Softmax", ["a"], ["s"], name="softmax"),
            helper.make_node("Log", ["s"], ["y"], name="log"),
        ],
        "x",
        "y",
    )
    files = {"model.onnx": model.SerializeToString()}
    assert first_not_finite(files, {"x": np.float32([[1, 1]])}) == "node 'log' (Log) of model.onnx"


def test_every_tensor_is_given_and_the_model_is_left_as_it_is() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Neg", ["r"], ["y"])]
    model = segment(nodes, "x", "y")
    before = model.SerializeToString()
    tensors = every_tensor(model, {"x": np.float32([[-1, 3]])})
    assert {name: value.tolist() for name, value in tensors.items()} == {"r": [[0, 3]], "y": [[0, -3]]}
    assert model.SerializeToString() == before
