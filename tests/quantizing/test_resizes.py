"""Interpolation by products stays in float32, and counts as no product, in every precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress import registry
from sdcompress.onnx_graph.edit import copy_model
from sdcompress.onnx_graph.macs import parameters
from sdcompress.onnx_graph.resizes import is_interpolation, multiply_resizes
from sdcompress.quantizing.precisions._base import FloatSegment, Rewriter
from sdcompress.quantizing.quantize import ROOM
from sdcompress.quantizing.segments import count_products, output_layers, without_signals

Made = Callable[..., onnx.ModelProto]
CHANNELS = 32  # what fp8 asks for
SIZES = {"one product": (4, 6), "two products": (16, 32)}  # the second is a width that fp8 asks for too


def mask(graph: Made, size: int, resized: int) -> onnx.ModelProto:
    """relu(conv(x)) interpolated, a convolution of it, and logits of each pixel, interpolated again to 64 x 64."""
    rng = np.random.default_rng(7)
    shapes = {"w0": (CHANNELS, CHANNELS, 3, 3), "w1": (CHANNELS, CHANNELS, 1, 1), "w2": (3, CHANNELS, 1, 1)}
    weights = {name: rng.normal(scale=0.1, size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {f"b{index}": np.zeros(channels, np.float32) for index, channels in enumerate((CHANNELS, CHANNELS, 3))}
    scale = resized / size
    weights["s0"] = np.array([1, 1, scale, scale], np.float32)
    weights["s1"] = np.array([1, 1, 64 / resized, 64 / resized], np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1], name="first"),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu"),
        helper.make_node("Resize", ["r0", "", "s0"], ["up"], mode="linear", name="up"),
        helper.make_node("Conv", ["up", "w1", "b1"], ["c1"], name="second"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["small"], name="last"),
        helper.make_node("Resize", ["small", "", "s1"], ["y"], mode="linear", name="logits"),
    ]
    model = graph(nodes, {"x": ["batch", CHANNELS, size, size]}, {"y": ["batch", 3, 64, 64]}, weights)
    for name, shape in (("up", [CHANNELS, resized, resized]), ("c1", [CHANNELS] + [resized] * 2),
                        ("r1", [CHANNELS] + [resized] * 2), ("small", [3, resized, resized])):  # fmt: skip
        kept = [value for value in model.graph.value_info if value.name != name]
        del model.graph.value_info[:]
        model.graph.value_info.extend(
            [*kept, helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])]
        )
    return model


@pytest.fixture(params=SIZES)
def resized(request: pytest.FixtureRequest, graph: Made) -> onnx.ModelProto:
    return mask(graph, *SIZES[request.param])


@pytest.fixture
def multiplied(resized: onnx.ModelProto) -> onnx.ModelProto:
    """The same with products, as the exporter hands it to a precision."""
    model = copy_model(resized)
    multiply_resizes(model)
    assert not any(node.op_type == "Resize" for node in model.graph.node)
    return without_signals(model, [])


@pytest.fixture
def segment(multiplied: onnx.ModelProto) -> FloatSegment:
    rng = np.random.default_rng(8)
    (shape,) = ([axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]] for value in multiplied.graph.input)
    feeds = [{"x": rng.normal(size=(2, *shape)).astype(np.float32)} for _ in range(2)]
    return FloatSegment(multiplied, output_layers(multiplied, ["y"]), lambda: iter(feeds))


@pytest.fixture(params=["int8", "uint8", "fp8", "fp16", "bf16"])
def quantised(request: pytest.FixtureRequest, segment: FloatSegment) -> tuple[str, onnx.ModelProto]:
    precision: Rewriter = registry.load(ROOM, request.param, extra="quantize")
    return request.param, precision(segment)


def test_the_products_keep_their_matrices_in_float32(
    quantised: tuple[str, onnx.ModelProto], multiplied: onnx.ModelProto
) -> None:
    _, model = quantised
    stored = {tensor.name: tensor for tensor in multiplied.graph.initializer}
    products = [node for node in multiplied.graph.node if node.op_type == "MatMul"]
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    by_name = {node.name: node for node in model.graph.node}
    assert len(products) >= 3
    for product in products:
        assert is_interpolation(product)
        (matrix,) = stored.keys() & set(product.input)
        assert matrix in by_name[product.name].input
        assert kept[matrix].data_type == TensorProto.FLOAT
        np.testing.assert_array_equal(*(numpy_helper.to_array(tensors[matrix]) for tensors in (kept, stored)))
        (data,) = set(by_name[product.name].input) - {matrix}
        types = {
            v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info
        }
        assert types.get(data, TensorProto.FLOAT) == TensorProto.FLOAT


def test_the_last_convolution_stays_an_output_layer(
    quantised: tuple[str, onnx.ModelProto], segment: FloatSegment
) -> None:
    """As it is before a Resize: float32 in a type, and with an output that is not rounded in integers."""
    name, model = quantised
    assert "small" in segment.output_layers
    assert "r1" not in segment.output_layers
    assert count_products(model, name) == ((3, 0) if name.endswith("int8") else (2, 1))  # of three convolutions
    rounded = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert "small" not in rounded
    assert not any("bilinear" in tensor for tensor in rounded)


def test_the_graph_computes_about_the_same(
    quantised: tuple[str, onnx.ModelProto], segment: FloatSegment, resized: onnx.ModelProto
) -> None:
    name, model = quantised
    if name == "bf16":
        pytest.skip("onnxruntime has no convolutions in it")
    feed = next(segment.feeds())
    exact, rounded = (
        onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]).run(["y"], feed)[0]
        for graph in (resized, model)
    )
    assert 0 < np.abs(exact - rounded).max() < 0.15 * np.abs(exact).max()


def test_parameters_are_those_of_the_convolutions(quantised: tuple[str, onnx.ModelProto]) -> None:
    assert parameters(quantised[1]) == 32 * 32 * 9 + 32 * 32 + 3 * 32 + 32 + 32 + 3


def test_uint8_multiplies_what_is_a_resize_in_float32(resized: onnx.ModelProto) -> None:
    model = without_signals(resized, [])
    rng = np.random.default_rng(9)
    (shape,) = ([axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]] for value in model.graph.input)
    feed = {"x": rng.normal(size=(3, *shape)).astype(np.float32)}
    segment = FloatSegment(model, output_layers(model, ["y"]), lambda: iter([feed]))
    operators = {}
    for name in ("int8", "uint8"):
        precision: Rewriter = registry.load(ROOM, name, extra="quantize")
        quantised = precision(segment)
        operators[name] = [node.op_type for node in quantised.graph.node]
        assert count_products(quantised, name) == (3, 0)
    assert operators["int8"].count("Resize") == 2
    assert "MatMul" not in operators["int8"]
    assert "Resize" not in operators["uint8"]
    assert operators["uint8"].count("MatMul") in {3, 4}
