"""Constants that float16 takes for zero are added in float32, on to the division that they guard."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from sdcompress.quantizing.float16_range import vanishing_paths
from sdcompress.quantizing.precisions.fp16 import fp16

Made = Callable[..., onnx.ModelProto]


def scaled(graph: Made, epsilon: float, *middle: onnx.NodeProto) -> onnx.ModelProto:
    """x / middle(span + epsilon), between two products."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("ReduceMax", ["a"], ["high"], axes=[1], name="high"),
        helper.make_node("ReduceMin", ["a"], ["low"], axes=[1], name="low"),
        helper.make_node("Sub", ["high", "low"], ["span"], name="span"),
        *middle,
        helper.make_node("Div", ["span", "divisor"], ["d"], name="ratio"),
        helper.make_node("Mul", ["a", "d"], ["m"], name="product"),
        helper.make_node("MatMul", ["m", "w"], ["y"], name="last"),
    ]
    weights = {"w": np.eye(2, dtype=np.float32), "epsilon": np.array(epsilon, np.float32)}
    return graph(nodes, {"x": ["batch", 2]}, {"y": ["batch", 2]}, weights, opset=16)


FORMS = {
    "add": (helper.make_node("Add", ["span", "epsilon"], ["divisor"]),),
    "max": (helper.make_node("Max", ["epsilon", "span"], ["divisor"]),),
    "clip": (helper.make_node("Clip", ["span", "epsilon"], ["divisor"]),),
    "root": (
        helper.make_node("Mul", ["span", "span"], ["square"]),
        helper.make_node("Add", ["square", "epsilon"], ["sum"]),
        helper.make_node("Sqrt", ["sum"], ["divisor"]),
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("epsilon", [1e-8, 1e-12])
def test_a_row_of_equal_numbers_is_finite_in_every_node_as_it_is_written(
    graph: Made, segment_of: Callable, form: str, epsilon: float
) -> None:
    model = fp16(segment_of(scaled(graph, epsilon, *FORMS[form]), [], ("y",)))
    onnx.checker.check_model(model, full_check=True)
    with np.errstate(all="raise", under="ignore"):  # no 0 / 0
        (output,) = ReferenceEvaluator(model).run(None, {"x": np.float32([[3, 3], [1, 2]])})
    np.testing.assert_allclose(output, [[0, 0], [1, 2]], atol=2e-3)


def test_only_what_hangs_on_the_constant_is_wide(graph: Made) -> None:
    assert vanishing_paths(scaled(graph, 1e-8, *FORMS["root"])) == {"sum", "divisor", "d"}
    assert vanishing_paths(scaled(graph, 1e-5, *FORMS["root"])) == frozenset()  # float16 has it


def test_weights_with_some_small_numbers_and_zeros_are_no_constants_of_that_kind(graph: Made) -> None:
    weights = {
        "w": np.full((2, 2), 1e-9, np.float32),  # a product's weight
        "some": np.float32([1e-9, 1]),
        "zero": np.zeros(2, np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "some"], ["b"]),
        helper.make_node("Add", ["b", "zero"], ["y"]),
    ]
    assert vanishing_paths(graph(nodes, {"x": ["batch", 2]}, {"y": ["batch", 2]}, weights)) == frozenset()
