"""What rounded weights add on average is taken out of the biases, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from sdcompress.quantizing.bias_correction import correct_biases

# two groups of one input and two output channels each; the means of the inputs are 2 and -1
WEIGHTS = np.array([[0.5], [1.0], [-0.25], [2.0]], np.float32).reshape(4, 1, 1, 1)
ROUNDED = np.array([[0.5], [0.75], [-0.5], [2.25]], np.float32).reshape(4, 1, 1, 1)
BIAS = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
X = np.stack([np.full((2, 3), 2.0), np.full((2, 3), -1.0)])[None].astype(np.float32)


@pytest.fixture
def pair(graph: Callable[..., onnx.ModelProto]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A convolution with rounded weights, in steps of 1/4, and the same in float32."""
    conv = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=2, name="conv")
    shapes = {"x": ["batch", 2, 2, 3]}, {"y": ["batch", 4, 2, 3]}
    restored = helper.make_node("DequantizeLinear", ["codes", "scales"], ["w"], axis=0)
    codes = {"codes": (4 * ROUNDED).astype(np.int8), "scales": np.full(4, 0.25, np.float32), "b": BIAS}
    return graph([restored, conv], *shapes, codes), graph([conv], *shapes, {"w": WEIGHTS, "b": BIAS})


def biases(model: onnx.ModelProto) -> dict[str, list[float]]:
    return {
        tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in model.graph.initializer if "b" in tensor.name
    }


def test_the_mean_shift_of_each_channel_is_taken_out(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    quantized, model = pair
    correct_biases(quantized, model, [{"x": X}, {"x": np.concatenate([X, X])}], threads=1)
    # weights are off by 0, -1/4, -1/4 and 1/4, so outputs by 0, -1/2, 1/4 and -1/4
    assert biases(quantized) == {"b": [1.0, 2.5, 2.75, 4.25]}
    onnx.checker.check_model(quantized, full_check=True)


def test_where_the_means_are_not_finite_the_bias_stays(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    quantized, model = pair
    correct_biases(quantized, model, [{"x": np.full_like(X, np.inf)}], threads=1)
    assert biases(quantized) == {"b": BIAS.tolist()}


def test_convolutions_that_share_a_bias_get_one_each(graph: Callable[..., onnx.ModelProto]) -> None:
    def model(names: list[str], *first: onnx.NodeProto, **stored: np.ndarray) -> onnx.ModelProto:
        convs = [
            helper.make_node("Conv", ["x", name, "b"], [f"y{k}"], group=2, name=f"conv{k}")
            for k, name in enumerate(names)
        ]
        outputs = {f"y{k}": ["batch", 4, 2, 3] for k in range(2)}
        return graph([*first, *convs], {"x": ["batch", 2, 2, 3]}, outputs, {**stored, "b": BIAS})  # type: ignore[dict-item]

    restored = helper.make_node("DequantizeLinear", ["codes", "scales"], ["w"], axis=0)
    codes = {"codes": (4 * ROUNDED).astype(np.int8), "scales": np.full(4, 0.25, np.float32)}
    quantized = model(["w", "w"], restored, **codes)
    correct_biases(quantized, model(["w0", "w1"], w0=WEIGHTS, w1=ROUNDED), [{"x": X}], threads=1)
    assert biases(quantized) == {"b/conv0": [1.0, 2.5, 2.75, 4.25], "b": BIAS.tolist()}
