"""Multiply-accumulates and parameters, worked out by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress.errors import UsageError
from sdcompress.onnx_graph.macs import macs, parameters
from sdcompress.onnx_graph.partition import cut_segments

FLOAT = TensorProto.FLOAT


def graph(
    nodes: list[onnx.NodeProto], given: list[int | str], made: list[int | str], **weights: tuple[int, ...]
) -> onnx.ModelProto:
    """A graph from "x" to "y"; a weight of shape () is a scalar."""
    inside = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, given)],
        [helper.make_tensor_value_info("y", FLOAT, made)],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(inside, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_convolution_counts_each_output_times_its_kernel() -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    model = graph([node], ["batch", 3, 8, 8], ["batch", 4, 4, 4], w=(4, 3, 3, 3), b=(4,))
    assert macs(model, {"batch": 1}) == 4 * 4 * 4 * (3 * 3 * 3)  # the bias is an addition, not a multiplication
    assert parameters(model) == 4 * 3 * 3 * 3 + 4


def test_groups_see_their_own_channels_only() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=3)
    model = graph([node], ["batch", 6, 5, 5], ["batch", 9, 5, 5], w=(9, 2, 1, 1))
    assert macs(model, {"batch": 1}) == 9 * 5 * 5 * 2


def test_a_transposed_convolution_counts_each_input_times_its_kernel() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=2)
    model = graph([node], ["batch", 4, 3, 3], ["batch", 6, 6, 6], w=(4, 3, 2, 2))
    assert macs(model, {"batch": 1}) == 4 * 3 * 3 * (3 * 2 * 2)


@pytest.mark.parametrize(("transposed", "weight"), [(0, (7, 5)), (1, (5, 7))])
def test_a_linear_layer(transposed: int, weight: tuple[int, int]) -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=transposed)
    assert macs(graph([node], ["batch", 7], ["batch", 5], w=weight, b=(5,)), {"batch": 1}) == 7 * 5


def test_attention_multiplies_data_with_data() -> None:
    """x [batch, 4 heads, 10, 8] @ its transpose: 4 * 10 * 10 products of 8."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    assert macs(graph(nodes, ["batch", 4, 10, 8], ["batch", 4, 10, 10]), {"batch": 1}) == 4 * 10 * 10 * 8


def test_attention_as_one_operator_counts_both_of_its_products() -> None:
    """4 heads, 10 queries of 8, 12 keys of 8, values of 6: 4 * 10 * 12 products of 8, then as many of 6."""
    model = graph(
        [helper.make_node("Attention", ["x", "k", "v"], ["y"])],
        ["batch", 4, 10, 8],
        ["batch", 4, 10, 6],
        k=(1, 4, 12, 8),
        v=(1, 4, 12, 6),
    )
    model.opset_import[0].version = 23
    assert macs(model, {"batch": 1}) == 4 * 10 * 12 * (8 + 6)


@pytest.mark.parametrize(
    ("equation", "given", "made", "weight", "expected"),
    [
        ("bchw, cd -> bdhw", [3, 4, 5], [6, 4, 5], (3, 6), 3 * 4 * 5 * 6),
        ("...c,cd->...d", [4, 5, 3], [4, 5, 6], (3, 6), 4 * 5 * 3 * 6),
        ("bhnd,hmd->bhnm", [2, 10, 8], [2, 10, 12], (2, 12, 8), 2 * 10 * 12 * 8),
        ("b...,...->b...", [4, 5], [4, 5], (4, 1), 4 * 5),  # the axis of one is repeated
    ],
)
def test_a_product_in_the_notation_of_einstein(
    equation: str, given: list[int | str], made: list[int | str], weight: tuple[int, ...], expected: int
) -> None:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation=equation)
    assert macs(graph([node], ["batch", *given], ["batch", *made], w=weight), {"batch": 1}) == expected


def test_an_einsum_of_one_tensor_multiplies_nothing() -> None:
    node = helper.make_node("Einsum", ["x"], ["y"], equation="bcd->bd")
    assert macs(graph([node], ["batch", 3, 4], ["batch", 4]), {"batch": 1}) == 0


@pytest.mark.parametrize(("operator", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_a_recurrent_layer_multiplies_at_every_step_in_both_directions(operator: str, gates: int) -> None:
    """9 steps of 5 numbers, 7 hidden ones: each gate reads 5 and 7 for each of the 7."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node(operator, ["steps", "w", "r"], ["y"], hidden_size=7, direction="bidirectional"),
    ]
    model = graph(nodes, ["batch", 9, 5], [9, 2, "batch", 7], w=(2, gates * 7, 5), r=(2, gates * 7, 7))
    assert macs(model, {"batch": 1}) == 9 * 2 * gates * 7 * (5 + 7)


def test_windows_of_an_image_are_counted_for_the_whole_image() -> None:
    """[batch, 64] -> 4 windows an image of 16 numbers each, times [16, 3]; the shape cannot be inferred."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        helper.make_node("Mul", ["rows", "four"], ["windows"]),
        helper.make_node("Concat", ["windows", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["cut"]),
        helper.make_node("MatMul", ["cut", "w"], ["product"]),
        helper.make_node("Reshape", ["product", "back"], ["y"]),
    ]
    model = graph(nodes, ["batch", 64], ["batch", 12], w=(16, 3))
    for name, value in {"four": [4], "rest": [16], "back": [-1, 12]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model.graph.value_info.append(helper.make_tensor_value_info("cut", FLOAT, ["4*batch", 16]))
    model.graph.value_info.append(helper.make_tensor_value_info("product", FLOAT, ["4*batch", 3]))
    assert macs(model, {"batch": 1}) == 4 * 16 * 3
    assert parameters(model) == 16 * 3  # whole numbers are shapes, not parameters


def test_what_is_computed_from_weights_alone_costs_nothing_for_an_image() -> None:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    assert macs(graph(nodes, ["batch", 2], ["batch", 3], a=(2, 100), b=(100, 3)), {"batch": 1}) == 2 * 3


def test_scalars_are_constants_not_parameters() -> None:
    nodes = [helper.make_node("Mul", ["x", "s"], ["y"])]
    model = graph(nodes, ["batch", 2], ["batch", 2], s=())
    assert (macs(model, {"batch": 1}), parameters(model)) == (0, 0)


def test_a_size_that_depends_on_more_than_the_named_axes_is_refused() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    with pytest.raises(UsageError, match=r"'y' has the axes \[1, 'length', 3\]"):
        macs(graph([node], ["batch", "length", 4], ["batch", "length", 3], w=(4, 3)), {"batch": 1})


@pytest.mark.parametrize(
    ("axis", "length"), [("length", 7), ("2*length + 1", 15), ("batch*length", 7), ("length//2", 3)]
)
def test_a_named_axis_has_the_size_that_is_given(axis: str, length: int) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = graph([node], ["batch", axis, 4], ["batch", axis, 3], w=(4, 3))
    assert macs(model, {"batch": 1, "length": 7}) == length * 4 * 3


def test_an_exported_network_and_its_segments(model: onnx.ModelProto) -> None:
    logits = [f"{name}_outputs" for name in ("exit1", "exit2", "final")]
    expected = [
        (4 * 8 * 8 * 3 * 9 + 4 * 5, 4 * 3 * 9 + 4 + 4 * 5 + 5),  # 3x3 convolution 3 -> 4 on 8x8, head
        (8 * 4 * 4 * 2 * 9 + 8 * 5, 8 * 2 * 9 + 8 + 8 * 5 + 5),  # 3x3, stride 2, two groups 4 -> 8
        (8 * 4 * 4 * 6 * 4 + 6 * 5, 8 * 6 * 4 + 6 + 6 * 5 + 5),  # transposed 2x2, stride 2, 8 -> 6
    ]
    assert [(macs(piece, {"batch": 1}), parameters(piece)) for piece in cut_segments(model, logits)] == expected
    assert macs(model, {"batch": 1}) == sum(count for count, _ in expected)
    assert parameters(model) == sum(size for _, size in expected)


def test_rounded_weights_count_as_the_floats_that_they_stand_for() -> None:
    """A convolution of 3x3 from 3 to 4 channels: 108 codes and 4 floats; 4 scales and 4 zero points are none."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["d", "wd", "b"], ["y"], pads=[1, 1, 1, 1]),
    ]
    model = graph(nodes, ["batch", 3, 8, 8], ["batch", 4, 8, 8], s=(), ws=(4,), b=(4,))
    for name, value in {"z": 0, "wz": [0] * 4, "w": np.ones((4, 3, 3, 3))}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int8), name))
    assert macs(model, {"batch": 1}) == 4 * 8 * 8 * 27
    assert parameters(model) == 108 + 4
