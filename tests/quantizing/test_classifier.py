"""The end of a classifier in uint8: a mean over a map and a Gemm that gives floats, both computed in integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from sdcompress.machine import machine
from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.quantizing.integer_rewrites import pool_means, quantize_gemm_biases
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.uint8 import uint8

Made = Callable[..., onnx.ModelProto]
Segment = Callable[..., FloatSegment]


def classifier(graph: Made, *, keepdims: int, opset: int, axes: list[int]) -> onnx.ModelProto:
    """Conv, Relu, mean, Gemm; the axes are an input of ReduceMean from opset 18 on."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(5, 8)).astype(np.float32),
        "b": rng.normal(size=5).astype(np.float32),
    }
    given = {} if opset >= 18 else {"axes": axes}
    if not given:
        weights["axes"] = np.array(axes)
    mean = ["relu", "axes"] if not given else ["relu"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], name="conv"),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        helper.make_node("ReduceMean", mean, ["mean"], name="mean", keepdims=keepdims, **given),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "v", "b"], ["y"], name="last", transB=1),
    ]
    return graph(nodes, {"x": ["batch", 3, 8, 8]}, {"y": ["batch", 5]}, weights, opset=opset)


def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(64, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("opset", "axes"), [(18, [2, 3]), (18, [-1, -2]), (13, [3, 2])])
def test_the_logits_stay_near_and_the_kernels_are_integer(
    *, graph: Made, segment_of: Segment, tmp_path: Path, keepdims: int, opset: int, axes: list[int]
) -> None:
    model = classifier(graph, keepdims=keepdims, opset=opset, axes=axes)
    x = images()
    quantised = uint8(segment_of(model, [x], ("y",)))
    exact, rounded = (cpu_session(each.SerializeToString()).run(None, {"x": x})[0] for each in (model, quantised))
    assert np.abs(rounded - exact).max() < 0.03 * np.ptp(exact)
    if "avx2" not in machine().isa:
        return
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert (kernels["QLinearGlobalAveragePool"], kernels["QGemm"]) == (1, 1)
    assert not kernels.keys() & {"ReduceMean", "Gemm", "DequantizeLinear"}


MAP: list[int | str] = ["batch", 2, 4, 4]
ENDS: dict[str, tuple[list[str], list[int | str], list[int], bool]] = {
    # operators behind the first one, shape of the map, axes of the mean, whether it is pooled
    "a Gemm": (["Relu", "ReduceMean", "Flatten", "Gemm"], MAP, [2, 3], True),
    "a Conv, as in squeeze and excitation": (["Relu", "ReduceMean", "Conv"], MAP, [3, 2], True),
    "an operator in float32": (["Relu", "ReduceMean", "Sqrt"], MAP, [2, 3], False),
    "the output of the graph": (["Relu", "ReduceMean"], MAP, [2, 3], False),
    "a map in float32": (["Sigmoid", "ReduceMean", "Conv"], MAP, [2, 3], False),
    "channels": (["Relu", "ReduceMean", "Sqrt"], MAP, [1], False),
    "five axes": (["Relu", "ReduceMean", "Conv"], ["batch", 2, 4, 4, 4], [2, 3], False),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_mean_is_pooled_only_between_quantised_nodes(graph: Made, end: str) -> None:
    operators, shape, axes, pooled = ENDS[end]
    kernel = (2, 2, *(1 for _ in shape[2:]))
    weights = {"axes": np.array(axes), "v": np.eye(2, dtype=np.float32), "k": np.ones(kernel, np.float32)}
    further = {"ReduceMean": ["axes"], "Gemm": ["v"], "Conv": ["k"]}
    names = ["x", *(f"t{at}" for at in range(1, len(operators))), "y"]
    nodes = [
        helper.make_node(operator, [names[at], *further.get(operator, [])], [names[at + 1]], name=operator)
        for at, operator in enumerate(operators)
    ]
    rank = 2 if "Gemm" in operators else len(shape)
    model = graph(nodes, {"x": shape}, {"y": [None] * rank}, weights)
    pool_means(model.graph, set(), {"Relu", "Gemm", "Conv"})
    expected = [{"ReduceMean": "GlobalAveragePool"}.get(one, one) if pooled else one for one in operators]
    assert [node.op_type for node in model.graph.node] == expected


def test_a_mean_of_an_output_layer_is_left_as_it_is(graph: Made) -> None:
    model = classifier(graph, keepdims=1, opset=18, axes=[2, 3])
    pool_means(model.graph, {"mean"}, {"conv", "relu", "last"})
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "ReduceMean", "Flatten", "Gemm"]


def gemm(bias: list[float], *, scale: float = 0.5, **factors: float) -> onnx.ModelProto:
    """[1, 2] codes in steps of ``scale`` times weights in steps of 0.25 and 0.125."""
    stored = {
        "s": np.float32(scale),
        "z": np.uint8(0),
        "codes": np.array([[2, -4], [8, 1]], np.int8),
        "steps": np.array([0.25, 0.125], np.float32),
        "zeros": np.zeros(2, np.int8),
        "bias": np.array(bias, np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["data"]),
        helper.make_node("DequantizeLinear", ["codes", "steps", "zeros"], ["weight"], axis=0),
        helper.make_node("Gemm", ["data", "weight", "bias"], ["y"], transB=1, **factors),
    ]
    inside = helper.make_graph(
        nodes,
        "gemm",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [1, 2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(inside, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_bias_counts_units_of_both_scales() -> None:
    """Units of 0.5 * 0.25 and 0.5 * 0.125: 1.0 is 8 units, and 0.1 is 1.6, nearest to 2."""
    model = gemm([1.0, 0.1])
    quantize_gemm_biases(model.graph)
    onnx.checker.check_model(model, full_check=True)
    codes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}["y/bias-in-units/codes"]
    assert (codes.tolist(), codes.dtype) == ([8, 2], np.int32)
    (y,) = cpu_session(model.SerializeToString()).run(None, {"x": np.array([[4, 6]], np.uint8)})
    # (2 * 4 - 4 * 6 + 8) * 0.125 and (8 * 4 + 6 + 2) * 0.0625
    np.testing.assert_array_equal(y, [[-1.0, 2.5]])


@pytest.mark.parametrize(
    "model",
    [gemm([1.0, 1e9]), gemm([1.0, 0.1], beta=0.5), gemm([1.0, 0.1], alpha=2), gemm([1.0, 0.1], scale=0), gemm([0.5])],
)
def test_a_bias_that_integers_do_not_hold_stays_as_it_is(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    quantize_gemm_biases(model.graph)
    assert model.SerializeToString() == before
