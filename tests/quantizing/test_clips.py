"""What is clipped stays clipped in integers, where the range of a Clip is that of the codes and where it is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from sdcompress.quantizing.precisions._base import FloatSegment, Rewriter
from sdcompress.quantizing.precisions.int8 import int8
from sdcompress.quantizing.precisions.uint8 import uint8

Made = Callable[..., onnx.ModelProto]
Segment = Callable[..., FloatSegment]
Levels = onnxruntime.GraphOptimizationLevel
IMAGE = ["batch", 1, 1, 256]
IDENTITY = {"w": np.ones((1, 1, 1, 1), np.float32)}
ROUNDED = 10 / 127  # a step of int8 for what reaches from -5 to 5, rounded twice
X = np.linspace(-5, 5, 256, dtype=np.float32).reshape(1, 1, 1, 256)


def run(model: onnx.ModelProto, x: np.ndarray, level: object = Levels.ORT_ENABLE_ALL) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def clipped(graph: Made, low: float | None, high: float | None, **outputs: list[str | int]) -> onnx.ModelProto:
    """A convolution that gives what it is given, a Clip, and a convolution again."""
    weights = dict(IDENTITY)
    names = ["c"]
    for name, value in (("low", low), ("high", high)):
        names.append(name if value is not None else "")
        if value is not None:
            weights[name] = np.array(value, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="before"),
        helper.make_node("Clip", names, ["k"], name="clip"),
        helper.make_node("Conv", ["k", "w"], ["y"], name="after"),
    ]
    return graph(nodes, {"x": IMAGE}, {**outputs, "y": IMAGE}, weights)


@pytest.mark.parametrize("precision", [int8, uint8])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.5, 3.0),
        (-3.0, -1.0),
        (0.25, None),
        (None, -1.0),
        (2.0, 2.0),
        (0.0, 3.0),
        (-3.0, 0.0),
        (-1.0, 2.0),
        (0.0, 6.0),
        (0.0, None),
        (3.0, -3.0),  # the wrong way round: always the upper one
    ],
)
@pytest.mark.parametrize("level", [Levels.ORT_DISABLE_ALL, Levels.ORT_ENABLE_ALL])
def test_a_clip_keeps_both_bounds(
    *,
    low: float | None,
    high: float | None,
    level: object,
    precision: Rewriter,
    graph: Made,
    segment_of: Segment,
) -> None:
    expected = X
    if low is not None:
        expected = np.maximum(expected, np.float32(low))
    if high is not None:
        expected = np.minimum(expected, np.float32(high))
    (output,) = run(precision(segment_of(clipped(graph, low, high), [X])), X, level)
    assert np.abs(output - expected).max() <= ROUNDED


def test_a_clip_that_codes_represent_needs_no_node(graph: Made, segment_of: Segment) -> None:
    quantised = uint8(segment_of(clipped(graph, 0.0, 6.0), [X]))
    assert {node.op_type for node in quantised.graph.node} == {"QuantizeLinear", "DequantizeLinear", "Conv"}


def test_the_codes_before_a_clip_are_those_of_its_range(graph: Made, segment_of: Segment) -> None:
    """0 to 3 in 255 steps, not -5 to 5: the range which is not needed would cost two thirds of the codes."""
    quantised = uint8(segment_of(clipped(graph, 0.5, 3.0), [X]))
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    first = next(node for node in quantised.graph.node if node.op_type == "Conv")
    rounding = next(node for node in quantised.graph.node if node.input[0] == first.output[0])
    assert stored[rounding.input[1]] == pytest.approx(3 / 255)
    assert stored[rounding.input[2]] == 0


def test_a_clip_with_computed_bounds_stays(graph: Made, segment_of: Segment) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="before"),
        helper.make_node("ReduceMax", ["x"], ["highest"], keepdims=0),
        helper.make_node("Mul", ["highest", "part"], ["bound"]),
        helper.make_node("Clip", ["c", "bound"], ["k"], name="clip"),
        helper.make_node("Conv", ["k", "w"], ["y"], name="after"),
    ]
    model = graph(nodes, {"x": IMAGE}, {"y": IMAGE}, {**IDENTITY, "part": np.array(0.5, np.float32)})
    (output,) = run(uint8(segment_of(model, [X])), X)
    assert np.abs(output - np.maximum(X, 2.5)).max() <= ROUNDED


@pytest.mark.parametrize("precision", [int8, uint8])
@pytest.mark.parametrize("reader", ["Add", "Mul"])
def test_another_reader_of_the_tensor_gets_it_unclipped(
    reader: str, precision: Rewriter, graph: Made, segment_of: Segment
) -> None:
    """In integers (Add) and in float32 (Mul)."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="before"),
        helper.make_node("Clip", ["c", "low", "high"], ["k"], name="clip"),
        helper.make_node(reader, ["c", "k"], ["both"], name="reader"),
        helper.make_node("Conv", ["both", "w"], ["y"], name="after"),
    ]
    bounds = {"low": np.array(0.5, np.float32), "high": np.array(3.0, np.float32)}
    (output,) = run(precision(segment_of(graph(nodes, {"x": IMAGE}, {"y": IMAGE}, {**IDENTITY, **bounds}), [X])), X)
    one = np.clip(X, 0.5, 3.0)
    expected = X + one if reader == "Add" else X * one
    assert np.abs(output - expected).max() <= 15 / 127 * 1.5


@pytest.mark.parametrize("precision", [int8, uint8])
@pytest.mark.parametrize("operator", ["Relu", "Clip"])
def test_an_output_of_the_segment_is_not_clipped_by_its_one_reader(
    operator: str, precision: Rewriter, graph: Made, segment_of: Segment
) -> None:
    """A cut before an activation, as in networks that normalise first: the next segment wants what is below 0."""
    model = clipped(graph, 0.0, 1.0, c=IMAGE)
    if operator == "Relu":
        del model.graph.node[1].input[1:]
        model.graph.node[1].op_type = "Relu"
    border, output = run(precision(segment_of(model, [X])), X)
    assert np.abs(border - X).max() <= ROUNDED
    assert np.abs(output - np.clip(X, 0, None if operator == "Relu" else 1)).max() <= ROUNDED


def test_hard_sigmoid_and_hard_swish_stay_float32(graph: Made, segment_of: Segment) -> None:
    for operator, expected in (
        ("HardSigmoid", np.clip(0.2 * X + 0.5, 0, 1)),
        ("HardSwish", X * np.clip(X / 6 + 0.5, 0, 1)),
    ):
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], name="before"),
            helper.make_node(operator, ["c"], ["k"], name="squash"),
            helper.make_node("Conv", ["k", "w"], ["y"], name="after"),
        ]
        quantised = uint8(segment_of(graph(nodes, {"x": IMAGE}, {"y": IMAGE}, IDENTITY), [X]))
        assert np.abs(run(quantised, X)[0] - expected).max() <= ROUNDED


def test_a_clip_of_the_logits_is_left_alone(graph: Made, segment_of: Segment) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["raw"], name="last"),
        helper.make_node("Clip", ["raw", "low", "high"], ["y"], name="clip"),
    ]
    weights = {"w": np.eye(4, dtype=np.float32), "low": np.array(0.5, np.float32), "high": np.array(3.0, np.float32)}
    model = graph(nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, weights)
    x = np.linspace(-5, 5, 64, dtype=np.float32).reshape(16, 4)
    quantised = uint8(segment_of(model, [x], ("y",)))
    assert [node.op_type for node in quantised.graph.node][-2:] == ["Gemm", "Clip"]
    np.testing.assert_allclose(run(quantised, x)[0], np.clip(x, 0.5, 3), atol=ROUNDED)


@pytest.mark.parametrize(("low", "high"), [(1, None), (None, -1)])
def test_a_clip_of_integers_is_left_as_it_is(
    low: int | None, high: int | None, graph: Made, segment_of: Segment
) -> None:
    """A count of tokens that is at least one, as a mean over them divides by it."""
    nodes = [
        helper.make_node("Cast", ["x"], ["n"], to=onnx.TensorProto.INT64),
        helper.make_node("Clip", ["n", "low" if low else "", "high" if high else ""], ["k"], name="clip"),
        helper.make_node("Cast", ["k"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Conv", ["f", "w"], ["y"], name="after"),
    ]
    bounds = {name: np.array(value, np.int64) for name, value in (("low", low), ("high", high)) if value}
    model = graph(nodes, {"x": IMAGE}, {"y": IMAGE}, IDENTITY | bounds)
    (output,) = run(uint8(segment_of(model, [X])), X)
    assert np.abs(output - np.clip(X.astype(np.int64), low, high)).max() <= ROUNDED
