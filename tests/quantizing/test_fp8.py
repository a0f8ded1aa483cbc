"""The codes, scales and pairs of fp8, worked out by hand; what is rounded, and that all runtimes agree on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.fp8 import fp8

Made = Callable[..., onnx.ModelProto]
Segment = Callable[..., FloatSegment]
Levels = onnxruntime.GraphOptimizationLevel
WIDE = ["batch", 32]


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def rounded(model: onnx.ModelProto) -> set[str]:
    """The float32 names of what nodes read rounded."""
    return {node.input[0].removesuffix("/fp8") for node in model.graph.node if node.op_type == "DequantizeLinear"}


def run(model: onnx.ModelProto, x: np.ndarray, level: Any = Levels.ORT_ENABLE_ALL) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.fixture
def diagonal(graph: Made) -> onnx.ModelProto:
    """y = 0.4375 x, 32 numbers wide: 0.4375 is 448 / 1024."""
    weights = {"w": np.float32(0.4375) * np.eye(32, dtype=np.float32)}
    return graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": WIDE}, {"y": WIDE}, weights)


# a number in steps of 1/32 and its code, for a largest of 14 = 448 / 32. E4M3 has three bits of fraction: from 16 on
# its steps are 2, from 256 on 32; below 2^-6 they are 2^-9. Ties go to the even one.
CODES = {
    1.0: 1.0,
    17.3: 18.0,
    17.0: 16.0,
    19.0: 20.0,
    -300.0: -288.0,
    448.0: 448.0,
    463.0: 448.0,
    1e4: 448.0,
    -1e4: -448.0,
    2.0**-9: 2.0**-9,
    2.0**-10: 0.0,
    1.5 * 2.0**-9: 2.0**-8,
}


def test_codes_are_those_of_e4m3_and_saturate(diagonal: onnx.ModelProto, segment_of: Segment) -> None:
    model = fp8(segment_of(diagonal, [np.full((1, 32), 14.0, np.float32)]))
    tensors = stored(model)
    assert tensors["x/fp8_scale/fp16"] == np.float16(1 / 32)
    assert tensors["w/fp8_scale/fp16"] == np.float16(1 / 1024)
    assert tensors["w/fp8"].dtype == helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
    np.testing.assert_array_equal(tensors["w/fp8"].astype(np.float32), 448 * np.eye(32))
    x = np.zeros((1, 32), np.float32)
    x[0, : len(CODES)] = np.array(list(CODES)) / 32
    expected = np.zeros((1, 32), np.float32)
    expected[0, : len(CODES)] = np.array(list(CODES.values())) / 32 * 0.4375
    np.testing.assert_array_equal(run(model, x)[0], expected.astype(np.float16))
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], expected.astype(np.float16))


def test_the_range_of_an_activation_is_the_largest_of_all_batches_whatever_its_sign(
    diagonal: onnx.ModelProto, segment_of: Segment
) -> None:
    batches = [np.full((2, 32), value, np.float32) for value in (3.0, -28.0, 7.0)]
    assert stored(fp8(segment_of(diagonal, batches)))["x/fp8_scale/fp16"] == np.float16(28 / 448)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.floats(-20, 6), seed=st.integers(0, 99))
def test_no_weight_saturates_and_each_keeps_three_bits(
    size: float, seed: int, graph: Made, segment_of: Segment
) -> None:
    """Whatever the scale: half a step is 1/16 of a number, or 2^-10 of the scale where that is larger."""
    weights = {"w": (2.0**size * np.random.default_rng(seed).normal(size=(32, 32))).astype(np.float32)}
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": WIDE}, {"y": WIDE}, weights)
    tensors = stored(fp8(segment_of(model, [np.ones((1, 32), np.float32)])))
    codes, scale = tensors["w/fp8"].astype(np.float64), float(tensors["w/fp8_scale/fp16"])
    largest = float(np.abs(weights["w"]).max())
    assert scale >= largest / 448
    assert scale <= max(largest / 448 * (1 + 2.0**-10), 2.0**-14)
    error = np.abs(codes * scale - weights["w"])
    assert (error <= np.maximum(np.abs(weights["w"]) / 16, scale * 2.0**-10) * 1.0001).all()


PRODUCTS = {
    "conv": ("Conv", (32, 32, 3, 3), {}, True),
    "conv of 48": ("Conv", (48, 32, 1, 1), {}, True),
    "kernel of 25": ("Conv", (32, 32, 5, 5), {}, True),
    "kernel of 49": ("Conv", (32, 32, 7, 7), {}, False),
    "16 channels out": ("Conv", (16, 32, 3, 3), {}, False),
    "steps of 8": ("Conv", (40, 32, 3, 3), {}, False),
    "depthwise": ("Conv", (32, 1, 3, 3), {"group": 32}, False),
    "groups": ("Conv", (64, 32, 3, 3), {"group": 2}, False),
    "transposed": ("ConvTranspose", (32, 32, 3, 3), {}, False),
    "gemm": ("Gemm", (32, 48), {}, True),
    "gemm with transB": ("Gemm", (48, 32), {"transB": 1}, True),
    "narrow gemm": ("Gemm", (32, 10), {}, False),
    "matmul": ("MatMul", (32, 64), {}, True),
    "stack of matrices": ("MatMul", (1, 32, 64), {}, False),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_only_what_tensorrt_has_kernels_for_is_rounded(name: str, graph: Made, segment_of: Segment) -> None:
    operator, shape, attributes, wanted = PRODUCTS[name]
    channels = 32 * attributes.get("group", 1) if name == "groups" else 32
    data: list[int | str] = ["batch", channels, 8, 8] if "Conv" in operator else WIDE
    weights = {"w": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    node = helper.make_node(operator, ["x", "w"], ["h"], **attributes)
    nodes = [node, helper.make_node("ReduceMax", ["h"], ["y"], keepdims=0)]
    model = graph(nodes, {"x": data}, {"y": []}, weights)
    x = np.random.default_rng(1).normal(size=(3, *data[1:])).astype(np.float32)
    quantised = fp8(segment_of(model, [x]))
    assert rounded(quantised) == ({"x", "w"} if wanted else set())
    onnx.checker.check_model(quantised, full_check=True)
    (exact,), (close,) = run(model, x), run(quantised, x)
    assert close == pytest.approx(exact, rel=0.15)


def test_what_multiplies_data_with_data_or_stands_first_is_not_rounded(graph: Made, segment_of: Segment) -> None:
    square = ["batch", 32, 32]
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["scores"]),
        helper.make_node("MatMul", ["w", "scores"], ["y"]),
    ]
    model = graph(nodes, {"x": square}, {"y": square}, {"w": np.eye(32, dtype=np.float32)})

    def never() -> Any:
        raise AssertionError("no range is needed")

    assert rounded(fp8(FloatSegment(model, frozenset(), never))) == set()


def test_what_makes_logits_reads_float32(
    wide_residual: onnx.ModelProto, wide_batches: list[np.ndarray], segment_of: Segment
) -> None:
    """Although its weights, 32 by 4, could not be rounded anyway: with 64 classes they could."""
    wide = onnx.ModelProto()
    wide.CopyFrom(wide_residual)
    for tensor in wide.graph.initializer:
        if tensor.name in {"w2", "b2"}:
            array = np.tile(numpy_helper.to_array(tensor), (16, *[1] * (len(tensor.dims) - 1)))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    wide.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 64
    quantised = fp8(segment_of(wide, wide_batches, ("exit1_outputs",)))
    assert rounded(quantised) == {"x", "w0", "r0", "w1"}
    assert stored(quantised)["w2"].dtype == np.float32
    last = next(node for node in quantised.graph.node if node.op_type == "Gemm")
    assert list(last.input) == ["flat", "w2", "b2"]
    without = fp8(segment_of(wide, wide_batches))  # logits of no exit
    assert rounded(without) == {"x", "w0", "r0", "w1", "flat", "w2"}


def test_a_tensor_is_rounded_once_for_all_its_readers(
    wide_residual: onnx.ModelProto, wide_batches: list[np.ndarray], segment_of: Segment
) -> None:
    model = fp8(segment_of(wide_residual, wide_batches, ("exit1_outputs",)))
    operators = Counter(node.op_type for node in model.graph.node)
    assert (operators["QuantizeLinear"], operators["DequantizeLinear"]) == (2, 4)
    readers = {node.op_type for node in model.graph.node if "r0/from_fp8/fp16" in node.input}
    assert readers == {"Conv", "Add"}
    (add,) = [node for node in model.graph.node if node.op_type == "Add"]
    assert list(add.input) == ["c1/fp16", "r0/from_fp8/fp16"]  # what the convolution gives is added as it is
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {types[name] for name in ("w0/fp8", "w1/fp8", "fp8/zero")} == {TensorProto.FLOAT8E4M3FN}
    assert {types[name] for name in types if name.endswith("/fp16")} == {TensorProto.FLOAT16}
    assert not stored(model)["fp8/zero"].astype(np.float32).any()
    assert "w0" not in types  # the float32 weights are gone


def conv(data: str, weight: str, out: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [data, weight], [out], pads=[0, 0, 0, 0])


SUMS = {
    "shortcut": ([conv("x", "w", "a"), helper.make_node("Add", ["x", "a"], ["y"])], {"x", "w"}),
    "two convolutions, of which the second ends the longer way": (
        [
            conv("x", "v", "short"),
            conv("x", "w", "a"),
            helper.make_node("Relu", ["a"], ["r"]),
            conv("r", "u", "long"),
            helper.make_node("Add", ["long", "short"], ["y"]),
        ],
        {"x", "w", "v", "u", "r", "short"},
    ),
    "a convolution with a second reader": (
        [
            conv("x", "w", "a"),
            helper.make_node("Sigmoid", ["x"], ["s"]),
            helper.make_node("Add", ["a", "s"], ["sum"]),
            helper.make_node("Mul", ["sum", "a"], ["y"]),
        ],
        {"x", "w"},
    ),
    "no convolution": (
        [
            helper.make_node("Sigmoid", ["x"], ["s"]),
            helper.make_node("Tanh", ["x"], ["t"]),
            helper.make_node("Add", ["s", "t"], ["sum"]),
            conv("sum", "w", "y"),
        ],
        {"sum", "w"},
    ),
    "with itself": (
        [conv("x", "w", "a"), helper.make_node("Add", ["a", "a"], ["y"])],
        {"x", "w"},
    ),
    "with what is stored": (
        [conv("x", "w", "a"), helper.make_node("Add", ["a", "b"], ["y"])],
        {"x", "w"},
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_of_a_sum_only_what_goes_round_a_convolution_is_rounded(name: str, graph: Made, segment_of: Segment) -> None:
    nodes, wanted = SUMS[name]
    rng = np.random.default_rng(0)
    used = {each for node in nodes for each in node.input}
    weights = {key: rng.normal(scale=0.2, size=(32, 32, 1, 1)).astype(np.float32) for key in "wvu" if key in used}
    weights |= {"b": rng.normal(size=(1, 32, 1, 1)).astype(np.float32)} if "b" in used else {}
    image: list[int | str] = ["batch", 32, 2, 2]
    model = graph(nodes, {"x": image}, {"y": image}, weights)
    x = rng.normal(size=(4, 32, 2, 2)).astype(np.float32)
    quantised = fp8(segment_of(model, [x]))
    assert rounded(quantised) == wanted
    add = next(node for node in quantised.graph.node if node.op_type == "Add")
    short = {"shortcut": "x", "two convolutions, of which the second ends the longer way": "short"}.get(name)
    assert [each for each in add.input if "from_fp8" in each] == ([f"{short}/from_fp8/fp16"] if short else [])


def test_a_convolution_that_is_an_output_is_not_fused_with_a_sum(graph: Made, segment_of: Segment) -> None:
    """Its output has to be written down anyway: both would not become one kernel."""
    image: list[int | str] = ["batch", 32, 2, 2]
    nodes = [conv("x", "w", "a"), helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Add", ["a", "s"], ["y"])]
    weights = {"w": np.ones((32, 32, 1, 1), np.float32)}
    x = [np.ones((1, 32, 2, 2), np.float32)]
    assert rounded(fp8(segment_of(graph(nodes, {"x": image}, {"y": image}, weights), x))) == {"x", "w", "s"}
    assert rounded(fp8(segment_of(graph(nodes, {"x": image}, {"y": image, "a": image}, weights), x))) == {"x", "w"}


def test_a_bias_far_above_the_weights_survives_what_onnxruntime_makes_of_it(graph: Made, segment_of: Segment) -> None:
    """It turns the bias into integers of both scales, in float16: 60000 of them would be infinite (see _MOST_BIAS)."""
    rng = np.random.default_rng(0)
    shape = (32, 32, 1, 1)
    weights = {
        "w": rng.normal(scale=0.01, size=shape).astype(np.float32),
        "v": rng.normal(scale=0.2, size=shape).astype(np.float32),
        "b": rng.normal(scale=5.0, size=32).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], name="second"),
    ]
    image: list[int | str] = ["batch", 32, 2, 2]
    model = graph(nodes, {"x": image}, {"y": image}, weights)
    x = rng.normal(scale=0.1, size=(8, 32, 2, 2)).astype(np.float32)
    quantised = fp8(segment_of(model, [x]))
    tensors = stored(quantised)
    product = float(tensors["x/fp8_scale/fp16"]) * float(tensors["w/fp8_scale/fp16"])
    assert np.abs(weights["b"]).max() / product <= 2.0**15
    (exact,), (plainly,), (optimised,) = run(model, x), run(quantised, x, Levels.ORT_DISABLE_ALL), run(quantised, x)
    (oracle,) = ReferenceEvaluator(quantised).run(None, {"x": x})
    size = np.abs(exact).max()
    for close in (plainly, optimised, oracle):
        assert np.abs(close - exact).max() < 0.05 * size


@pytest.mark.parametrize("level", [Levels.ORT_DISABLE_ALL, Levels.ORT_ENABLE_ALL])
def test_what_it_computes_is_what_the_codes_say(level: Any, graph: Made, segment_of: Segment) -> None:
    """Two layers in numpy: rounding to E4M3 is a cast there, and sums are float64."""
    rng = np.random.default_rng(2)
    weights = {key: rng.normal(scale=0.2, size=(32, 32)).astype(np.float32) for key in "wv"}
    weights |= {"b": rng.normal(size=32).astype(np.float32)}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["y"]),
    ]
    model = graph(nodes, {"x": WIDE}, {"y": WIDE}, weights)
    x = rng.normal(size=(64, 32)).astype(np.float32)
    quantised = fp8(segment_of(model, [x]))
    tensors = stored(quantised)

    def nearest(array: np.ndarray, name: str) -> np.ndarray:
        scale = float(tensors[f"{name}/fp8_scale/fp16"])
        codes = (array / scale).clip(-448, 448).astype(helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN))
        return codes.astype(np.float64) * scale

    hidden = np.maximum(nearest(x, "x") @ nearest(weights["w"], "w") + weights["b"], 0)
    expected = nearest(hidden, "r") @ nearest(weights["v"], "v")
    (exact,), (close,) = run(model, x), run(quantised, x, level)
    lost = np.abs(expected - exact).mean()
    assert 0.01 < lost / np.abs(exact).mean() < 0.1
    # what is left is float16's own rounding, and what it takes to the next code
    assert np.abs(close - expected).mean() < 0.1 * lost


def test_onnxs_own_evaluator_agrees(
    wide_residual: onnx.ModelProto, wide_batches: list[np.ndarray], segment_of: Segment
) -> None:
    """As far as it can: its convolutions add up in float16."""
    x = wide_batches[0][:4]
    model = fp8(segment_of(wide_residual, wide_batches, ("exit1_outputs",)))
    for actual, theirs, true in zip(
        run(model, x), ReferenceEvaluator(model).run(None, {"x": x}), run(wide_residual, x), strict=True
    ):
        lost = np.abs(theirs - true).mean()
        assert 0 < lost < 0.05 * np.abs(true).max()
        assert np.abs(actual - theirs).mean() < 0.5 * lost


@pytest.mark.parametrize(("given", "made"), [((18, 8), (19, 9)), ((18, 10), (19, 10)), ((21, 10), (21, 10))])
def test_an_opset_without_8_bit_floats_is_converted(
    given: tuple[int, int], made: tuple[int, int], graph: Made, segment_of: Segment
) -> None:
    weights = {"w": np.eye(32, dtype=np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = graph([node], {"x": WIDE}, {"y": WIDE}, weights, opset=given[0], ir=given[1])
    quantised = fp8(segment_of(model, [np.ones((1, 32), np.float32)]))
    assert (quantised.opset_import[0].version, quantised.ir_version) == made
    assert (model.opset_import[0].version, model.ir_version) == given
    onnx.checker.check_model(quantised, full_check=True)
