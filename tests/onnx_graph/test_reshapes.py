"""Shapes that follow from the axes are stored, and graphs compute the same at any size."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sdcompress.onnx_graph.reshapes import store_reshapes

Axes = list[int | str]


def reshaped(before: Axes, after: Axes, shape: list[int | str]) -> onnx.ModelProto:
    """y = x in a shape that is computed from that of x: of numbers, and sizes of the axes of x by their names."""
    nodes, parts, weights = [], [], []
    for position, part in enumerate(shape):
        parts.append(f"part{position}")
        if isinstance(part, int):
            weights.append(numpy_helper.from_array(np.array([part]), parts[-1]))
        else:
            at = before.index(part)
            nodes.append(helper.make_node("Shape", ["x"], parts[-1:], start=at, end=at + 1))
    nodes.append(helper.make_node("Concat", parts, ["shape"], axis=0))
    nodes.append(helper.make_node("Reshape", ["x", "shape"], ["y"], allowzero=1))
    graph = helper.make_graph(
        nodes,
        "reshape",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, before)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, after)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def sizes(axes: Axes) -> list[int]:
    return [axis if isinstance(axis, int) else {"batch": 5, "tokens": 7}[axis] for axis in axes]


@pytest.mark.parametrize(
    ("before", "after", "stored"),
    [
        (["batch", "tokens", 6], ["batch", "tokens", 3, 2], [0, 0, 3, 2]),
        (["batch", "tokens", 3, 2], ["batch", "tokens", 6], [0, 0, 6]),
        (["batch", 3, "tokens", 2], ["batch", "tokens", 6], [0, -1, 6]),
        (["batch", 4], ["batch", 2, 2], [0, 2, 2]),
    ],
)
def test_a_shape_of_axes_that_stay_is_stored(before: Axes, after: Axes, stored: list[int]) -> None:
    model = reshaped(before, after, after)
    store_reshapes(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Reshape"]
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == stored
    x = np.random.default_rng(0).random(sizes(before), np.float32)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_array_equal(y, x.reshape(sizes(after)))


def test_a_shape_in_which_two_axes_would_be_what_is_left_is_computed() -> None:
    model = reshaped([3, "batch", "tokens"], ["batch", "tokens", 3], ["batch", "tokens", 3])
    store_reshapes(model)
    assert [node.op_type for node in model.graph.node] == ["Shape", "Shape", "Concat", "Reshape"]
