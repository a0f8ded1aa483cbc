"""The size of tensors inside a graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from sdcompress.quantizing.ranges import abs_max


def test_the_largest_is_of_all_batches_and_of_both_signs(graph: Callable[..., onnx.ModelProto]) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Relu", ["n"], ["y"])]
    model = graph(nodes, {"x": ["batch", 2]}, {"y": ["batch", 2]}, {})
    feeds = [{"x": np.array([row], np.float32)} for row in ([1.0, 2.0], [-4.0, 8.0], [3.0, -1.0])]
    assert abs_max(model, {"x", "n", "y"}, iter(feeds)) == {"x": 8.0, "n": 8.0, "y": 4.0}
    assert [value.name for value in model.graph.output] == ["y"]


def test_an_infinity_is_no_size(graph: Callable[..., onnx.ModelProto]) -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])], {"x": ["batch", 2]}, {"y": ["batch", 2]}, {})
    feeds = [{"x": np.array([row], np.float32)} for row in ([-np.inf, -3.0], [2.0, np.inf])]
    assert abs_max(model, {"x", "y"}, iter(feeds)) == {"x": 3.0, "y": 2.0}
