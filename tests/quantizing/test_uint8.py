"""The codes and pairs of uint8, worked out by hand, and that x86 computes with them as they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress.artifact.weight_types import contradiction, stored_weights
from sdcompress.machine import machine
from sdcompress.quantizing import embeddings
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.uint8 import uint8

Segment = Callable[..., FloatSegment]


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_a_range_that_is_not_symmetric_uses_all_codes(
    graph: Callable[..., onnx.ModelProto], segment_of: Segment
) -> None:
    """x from -1 to 3 in 255 steps, where -1 is the code 0 and so 0 is the code 64."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    weights = {"w": np.array([0.5, -4.0], np.float32).reshape(2, 1, 1, 1)}
    conv = graph([node], {"x": ["batch", 1, 1, 2]}, {"y": ["batch", 2, 1, 2]}, weights)
    x = np.array([[[[-1.0, 3.0]]]], np.float32)
    model = uint8(segment_of(conv, [x]))
    tensors = stored(model)
    np.testing.assert_allclose(tensors["x_scale"], 4 / 255, rtol=1e-6)
    assert tensors["x_zero_point"] == 64
    assert tensors["x_zero_point"].dtype == np.uint8
    np.testing.assert_array_equal(tensors["w_quantized"].ravel(), [64, -64])  # weights as in int8: 7 bits, signed
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    step = float(tensors["y_scale"])
    np.testing.assert_allclose(y, x * weights["w"].reshape(1, 2, 1, 1), atol=step + 4 * float(tensors["x_scale"]))


def test_every_tensor_is_rounded_once_and_weights_never_beyond_7_bits(
    residual: onnx.ModelProto, batches: list[np.ndarray], segment_of: Segment
) -> None:
    model = uint8(segment_of(residual, batches, ("exit1_outputs",)))
    rounded = Counter(node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear")
    assert rounded["r0"] == 1  # read by a convolution and by the sum
    assert set(rounded.values()) == {1}
    codes = [value for name, value in stored(model).items() if name.endswith("_quantized")]
    assert max(np.abs(code.astype(int)).max() for code in codes) == 64


@pytest.mark.skipif("avx2" not in machine().isa, reason="Arm has kernels for signed codes")
def test_the_whole_block_is_computed_in_integers(
    residual: onnx.ModelProto, batches: list[np.ndarray], segment_of: Segment, tmp_path: Path
) -> None:
    model = uint8(segment_of(residual, batches, ("exit1_outputs",)))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert (kernels["QLinearConv"], kernels["Conv"], kernels["QLinearAdd"], kernels["Add"]) == (2, 0, 1, 0)
    assert kernels["QuantizeLinear"] == 1  # the input, once


def test_of_tokens_only_the_inputs_of_products_are_rounded(
    graph: Callable[..., onnx.ModelProto], segment_of: Segment
) -> None:
    """A layer with a residual connection: x + W2 relu(W1 x), then a sum of maps, which is rounded as before."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Tanh", ["h"], ["t"], name="tanh"),
        helper.make_node("MatMul", ["t", "w2"], ["r"], name="second"),
        helper.make_node("Add", ["x", "r"], ["y"], name="residual"),
    ]
    weights = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in ("w1", "w2")}
    layer = graph(nodes, {"x": ["batch", "tokens", 8]}, {"y": ["batch", "tokens", 8]}, weights)
    batches = [rng.normal(size=(4, 5, 8)).astype(np.float32)]
    model = uint8(segment_of(layer, batches))
    rounded = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(rounded) == ["t", "x"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": batches[0]})
    (again,) = session.run(None, {"x": batches[0][1:2]})
    np.testing.assert_array_equal(y[1:2], again)  # no row depends on the others


def test_a_table_of_embeddings_is_stored_in_half(
    graph: Callable[..., onnx.ModelProto], segment_of: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_LEAST_VALUES", 80)
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weight"], ["y"], name="product"),
    ]
    weights = {"table": rng.normal(size=(10, 8)), "weight": rng.normal(size=(8, 8))}
    narrow = {name: values.astype(np.float32) for name, values in weights.items()}
    encoder = graph(nodes, {"x": ["batch", "tokens"]}, {"y": ["batch", "tokens", 8]}, narrow)
    x = rng.integers(0, 10, (4, 5)).astype(np.float32)
    content = uint8(segment_of(encoder, [x])).SerializeToString()
    kept = stored_weights(content)
    assert kept.tensors["table"] == (TensorProto.FLOAT16, 80)
    assert contradiction("uint8", [kept]) == ""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    np.testing.assert_allclose(y, narrow["table"][x.astype(int)] @ narrow["weight"], atol=0.15)
