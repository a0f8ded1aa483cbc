"""The codes, scales and pairs of int8, worked out by hand, and that ONNX Runtime computes with them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from sdcompress.machine import machine
from sdcompress.onnx_graph.edit import copy_model
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.int8 import int8

Made = Callable[..., onnx.ModelProto]
Segment = Callable[..., FloatSegment]


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def pairs(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]


@pytest.fixture
def conv(graph: Made) -> onnx.ModelProto:
    """A 1x1 convolution of one channel into two, y = x * (0.5, -4) + (1, 2)."""
    weights = {
        "w": np.array([0.5, -4.0], np.float32).reshape(2, 1, 1, 1),
        "b": np.array([1.0, 2.0], np.float32),
    }
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv")
    return graph([node], {"x": ["batch", 1, 1, 2]}, {"y": ["batch", 2, 1, 2]}, weights)


def test_the_logging_of_the_program_stays_as_it_is(
    graph: Made, segment_of: Segment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime's quantizer logs that the computed bias of a Gemm makes it slower, by the root logger."""
    weights = {"w": np.eye(2, dtype=np.float32), "v": np.ones((2, 2), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["b"], name="bias"),
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm"),
    ]
    model = graph(nodes, {"x": ["batch", 2]}, {"y": ["batch", 2]}, weights)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a program that has set up nothing
    int8(segment_of(model, [np.ones((4, 2), np.float32)]))
    assert (logging.getLogger().handlers, logging.getLogger().filters) == ([], [])
    assert capsys.readouterr().err == ""


def test_weights_are_64_steps_of_the_largest_of_their_channel(conv: onnx.ModelProto, segment_of: Segment) -> None:
    x = np.array([[[[-1.0, 2.0]]]], np.float32)
    tensors = stored(int8(segment_of(conv, [x])))
    np.testing.assert_array_equal(tensors["w_quantized"].ravel(), [64, -64])
    # onnxruntime spreads -64..64 over twice the largest: 2 * 0.5 / 128
    np.testing.assert_allclose(tensors["w_scale"], [0.5 / 64, 4 / 64], rtol=1e-6)
    assert tensors["w_quantized"].dtype == np.int8
    np.testing.assert_array_equal(tensors["b"], np.array([1.0, 2.0], np.float32))  # the bias stays as it is


def test_nodes_of_one_name_are_told_apart(
    residual: onnx.ModelProto, batches: list[np.ndarray], segment_of: Segment
) -> None:
    """Biases are corrected, and nodes are left out, by the names of nodes."""
    expected = int8(segment_of(residual, batches, ("exit1_outputs",)))
    alike = copy_model(residual)
    for node, name in zip(alike.graph.node, ["same", "same-2", "same", *["same"] * 5], strict=True):
        node.name = name
    actual = int8(segment_of(alike, batches, ("exit1_outputs",)))
    assert max(Counter(node.name for node in actual.graph.node).values()) == 1
    for bias in ("b0", "b1"):
        np.testing.assert_array_equal(stored(actual)[bias], stored(expected)[bias])
        assert not np.array_equal(stored(actual)[bias], stored(residual)[bias])
    for one, other in zip(run(actual, batches[0]), run(expected, batches[0]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_outlier_counts_by_how_many_groups_of_32_images_hold_it(conv: onnx.ModelProto, segment_of: Segment) -> None:
    """63 images reach from -1 to 2, one to 8: half of all groups of 32 among 64 hold it, so that the range is +-5."""
    images = np.tile(np.array([[[[-1.0, 2.0]]]], np.float32), (64, 1, 1, 1))
    images[40, 0, 0, 1] = 8
    tensors = stored(int8(segment_of(conv, [images])))
    np.testing.assert_allclose(tensors["x_scale"], 10 / 254, rtol=1e-6)


def test_what_it_computes_is_what_the_codes_say(conv: onnx.ModelProto, segment_of: Segment) -> None:
    x = np.array([[[[-1.0, 2.0]]], [[[0.3, -1.7]]]], np.float32)
    model = int8(segment_of(conv, [x]))
    scales = stored(model)
    codes = np.clip(np.round(x / scales["x_scale"]), -128, 127)
    w = scales["w_quantized"].astype(np.float32) * scales["w_scale"].reshape(2, 1, 1, 1)
    exact = codes * scales["x_scale"] * w.reshape(1, 2, 1, 1) + np.array([1.0, 2.0]).reshape(1, 2, 1, 1)
    rounded = np.clip(np.round(exact / scales["y_scale"]), -128, 127) * scales["y_scale"]
    (output,) = run(model, x)
    # float32 may fall to the other side of a step's middle
    np.testing.assert_allclose(output, rounded, atol=1.001 * float(scales["y_scale"]))
    assert np.abs(output - rounded).max() < 1e-5 or np.abs(exact / scales["y_scale"] % 1 - 0.5).min() < 1e-3


def test_zero_is_the_code_0_everywhere_as_tensorrt_wants_it(
    residual: onnx.ModelProto, batches: list[np.ndarray], segment_of: Segment
) -> None:
    model = int8(segment_of(residual, batches, ("exit1_outputs",)))
    tensors = stored(model)
    assert len(pairs(model)) > 10
    for node in pairs(model):
        assert tensors[node.input[2]].dtype == np.int8
        assert not tensors[node.input[2]].any()
        assert node.domain == ""
    for name in ("b0", "b1", "b2"):
        assert tensors[name].dtype == np.float32


def test_no_sum_of_two_products_exceeds_16_bits(
    residual: onnx.ModelProto, batches: list[np.ndarray], segment_of: Segment
) -> None:
    """x86 without VNNI adds unsigned codes times weights in pairs: at most 255 * (64 + 64)."""
    tensors = stored(int8(segment_of(residual, batches, ("exit1_outputs",))))
    codes = [tensors[f"w{k}_quantized"].astype(int) for k in range(3)]
    largest = max(np.abs(code).max() for code in codes)
    assert largest == 64
    assert 255 * 2 * largest < 2**15


def test_logits_are_not_rounded_and_borders_keep_their_names_and_type(
    residual: onnx.ModelProto, batches: list[np.ndarray], segment_of: Segment
) -> None:
    model = int8(segment_of(residual, batches, ("exit1_outputs",)))
    makers = {name: node for node in model.graph.node for name in node.output}
    assert makers["exit1_outputs"].op_type == "Gemm"
    assert makers["border"].op_type == "DequantizeLinear"
    assert [(v.name, v.type) for v in model.graph.output] == [(v.name, v.type) for v in residual.graph.output]
    assert [(v.name, v.type) for v in model.graph.input] == [(v.name, v.type) for v in residual.graph.input]
    onnx.checker.check_model(model, full_check=True)
    exact, close = run(residual, batches[0]), run(model, batches[0])
    for one, other in zip(exact, close, strict=True):
        error = np.abs(one - other).max() / np.abs(one).max()
        assert 0 < error < 0.1


@pytest.mark.skipif("avx2" not in machine().isa, reason="Arm has kernels for signed codes")
def test_what_is_read_twice_is_computed_in_integers_too(
    residual: onnx.ModelProto, batches: list[np.ndarray], segment_of: Segment, tmp_path: Path
) -> None:
    """Without a difference between the two pairs of r0 its readers fall back to float32 (see _tell_apart)."""
    model = int8(segment_of(residual, batches, ("exit1_outputs",)))

    def kernels(model: onnx.ModelProto) -> list[str]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]

    assert {name: kernels(model).count(name) for name in ("QLinearConv", "Conv", "QLinearAdd", "Add")} == {
        "QLinearConv": 2,
        "Conv": 0,
        "QLinearAdd": 1,
        "Add": 0,
    }
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            del node.attribute[:]
    assert "Conv" in kernels(model)


def test_an_axis_beside_a_single_scale_changes_nothing(
    residual: onnx.ModelProto, batches: list[np.ndarray], segment_of: Segment
) -> None:
    model = int8(segment_of(residual, batches, ("exit1_outputs",)))
    axes = [a.i for node in model.graph.node if node.op_type == "QuantizeLinear" for a in node.attribute]
    assert axes
    assert all(-4 <= axis < 4 for axis in axes)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for node in plain.graph.node:
        if node.op_type == "QuantizeLinear":
            del node.attribute[:]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = [
        onnxruntime.InferenceSession(model_.SerializeToString(), options).run(None, {"x": batches[0]})
        for model_ in (model, plain)
    ]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_product_of_two_activations_stays_float(graph: Made, segment_of: Segment) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["a"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "t"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["y"], axis=-1),
    ]
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 6)).astype(np.float32)}
    model = graph(nodes, {"x": ["batch", 5, 4]}, {"y": ["batch", 5, 5]}, weights)
    quantised = int8(segment_of(model, [rng.normal(size=(8, 5, 4)).astype(np.float32)]))
    makers = {name: node for node in quantised.graph.node for name in node.output}
    softmax = next(node for node in quantised.graph.node if node.op_type == "Softmax")
    assert makers[softmax.input[0]].op_type == "MatMul"  # neither rounded before the softmax nor after it
    assert makers["y"].op_type == "Softmax"
    assert stored(quantised)["w_scale"].shape == (6,)  # one scale for each column


def test_what_is_stored_and_added_is_not_rounded(graph: Made, segment_of: Segment) -> None:
    """A linear of tokens is a product and a sum; one large bias would take the codes of the others."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 6)).astype(np.float32),
        "b": np.array([8.0, 0.008, -0.012, 0.02, -0.028, 0.036], np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"], name="bias"),
    ]
    x = rng.normal(scale=0.01, size=(16, 5, 4)).astype(np.float32)
    model = graph(nodes, {"x": ["batch", 5, 4]}, {"y": ["batch", 5, 6]}, weights)
    quantised = int8(segment_of(model, [x]))
    np.testing.assert_array_equal(stored(quantised)["b"], weights["b"])
    (add,) = [node for node in quantised.graph.node if node.op_type == "Add"]
    assert "b" in add.input
    (exact,), (close,) = run(model, x), run(quantised, x)
    assert np.abs(close - exact).max() < 0.002  # products reach 0.1, and 0.1 / 127 is their step


def test_a_factor_of_the_bias_is_kept(graph: Made, segment_of: Segment) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 6)).astype(np.float32), "b": rng.normal(size=6).astype(np.float32)}
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], beta=3.0, name="gemm")
    model = graph([node], {"x": ["batch", 4]}, {"y": ["batch", 6]}, weights)
    x = rng.normal(size=(16, 4)).astype(np.float32)
    (exact,), (close,) = run(model, x), run(int8(segment_of(model, [x])), x)
    np.testing.assert_allclose(close, exact, atol=0.02 * float(np.abs(exact).max()))


@pytest.mark.parametrize("shape", [(1, 6), (1,), ()])
def test_a_bias_that_is_broadcast_is_kept(graph: Made, segment_of: Segment, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 6)).astype(np.float32),
        "b": np.asarray(3 * rng.normal(size=shape), np.float32),
    }
    model = graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm")],
        {"x": ["batch", 4]},
        {"y": ["batch", 6]},
        weights,
    )
    x = rng.normal(size=(16, 4)).astype(np.float32)
    (exact,), (close,) = run(model, x), run(int8(segment_of(model, [x])), x)
    np.testing.assert_allclose(close, exact, atol=0.02 * float(np.abs(exact).max()))


def test_a_weight_that_is_read_along_two_axes_has_scales_for_both(graph: Made, segment_of: Segment) -> None:
    """x w w^T, where the columns of w differ by three orders of magnitude and its rows do not."""
    rng = np.random.default_rng(0)
    weights = {"w": (rng.normal(size=(4, 4)) * np.array([1e-3, 1e-2, 0.1, 1.0])).astype(np.float32)}
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], transB=1, name="rows"),
        helper.make_node("Gemm", ["a", "w"], ["y"], name="columns"),
    ]
    model = graph(nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, weights)
    tensors = stored(int8(segment_of(model, [rng.normal(size=(64, 4)).astype(np.float32)])))
    largest = np.abs(weights["w"])
    np.testing.assert_allclose(tensors["w_scale"], largest.max(1) / 64, rtol=1e-5)
    np.testing.assert_allclose(tensors["w/axis-1_scale"], largest.max(0) / 64, rtol=1e-5)


TWICE = """
import hashlib, pickle, sys
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.int8 import int8
import onnx
model, batches = pickle.load(open(sys.argv[1], "rb"))
model = onnx.load_from_string(model)
made = int8(FloatSegment(model, frozenset({"exit1_outputs"}), lambda: iter([{"x": batch} for batch in batches])))
print(hashlib.sha256(made.SerializeToString(deterministic=True)).hexdigest())
"""


def test_the_same_in_every_process(residual: onnx.ModelProto, batches: list[np.ndarray], tmp_path: Path) -> None:
    import pickle

    (tmp_path / "given").write_bytes(pickle.dumps((residual.SerializeToString(), batches)))
    digests = [
        subprocess.run(
            [sys.executable, "-c", TWICE, tmp_path / "given"],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout.split()[-1]
        for seed in ("1", "2")
    ]  # fmt: skip
    assert digests[0] == digests[1]
