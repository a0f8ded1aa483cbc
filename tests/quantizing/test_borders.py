"""Segments in uint8 that are joined compute bit for bit what they compute apart, in ONNX Runtime's integer kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.quantizing.precisions._base import Feed, FloatSegment
from sdcompress.quantizing.precisions.int8 import int8
from sdcompress.quantizing.precisions.uint8 import uint8
from sdcompress.quantizing.segments import output_layers
from sdcompress.runtime.headless import joined

Graph = Callable[..., onnx.ModelProto]
Segments = Callable[..., list[bytes]]


node = helper.make_node
# what a segment may begin with: "a" of its input "border", by kernels whose layout or order of sums may change
STARTS = {
    "convolution": [node("Conv", ["border", "w0"], ["a"], pads=[1, 1, 1, 1], name="start")],
    "depthwise": [node("Conv", ["border", "depthwise"], ["a"], group=8, pads=[1, 1, 1, 1], name="start")],
    "average": [node("AveragePool", ["border"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="start")],
    "maximum": [node("MaxPool", ["border"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="start")],
    "squeeze": [
        node("GlobalAveragePool", ["border"], ["mean"], name="start"),
        node("Conv", ["mean", "one"], ["excited"], name="excite"),
        node("Sigmoid", ["excited"], ["gate"]),
        node("Mul", ["border", "gate"], ["a"]),
    ],
    "concatenation": [
        node("Conv", ["border", "one"], ["half"], name="start"),
        node("Concat", ["half", "border"], ["both"], axis=1, name="both"),
        node("Conv", ["both", "two"], ["a"], name="mix"),
    ],
}
SHAPES = {"w0": (8, 8, 3, 3), "depthwise": (8, 1, 3, 3), "one": (8, 8, 1, 1), "two": (8, 16, 1, 1), "w1": (4, 72)}


@pytest.fixture(scope="module")
def segments(residual: onnx.ModelProto, graph: Graph, batches: list[np.ndarray]) -> Segments:
    """``segments(precision, start="convolution")``: the residual block with its head, and one that reads it.

    Each is calibrated with its inputs in float32.
    """
    rng = np.random.default_rng(5)
    values = {name: rng.normal(scale=0.2, size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    given = [cpu_session(residual.SerializeToString(), threads=1).run(["border"], {"x": x})[0] for x in batches]

    def make(precision: Callable[[FloatSegment], onnx.ModelProto], start: str = "convolution") -> list[bytes]:
        nodes = [
            *STARTS[start],
            node("Conv", ["a", "w0"], ["c0"], pads=[1, 1, 1, 1], name="next"),
            node("Add", ["c0", "border"], ["s"]),
            node("Relu", ["s"], ["r"]),
            node("AveragePool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["p"], ["flat"]),
            node("Gemm", ["flat", "w1"], ["final_outputs"], transB=1, name="logits"),
        ]
        read = {name for one in nodes for name in one.input}
        weights = {name: value for name, value in values.items() if name in read}
        second = graph(nodes, {"border": ["batch", 8, 6, 6]}, {"final_outputs": ["batch", 4]}, weights)

        def feeds(name: str, arrays: list[np.ndarray]) -> Callable[[], Iterator[Feed]]:
            return lambda: iter([{name: array} for array in arrays])

        parts = [
            FloatSegment(residual, output_layers(residual, ["exit1_outputs"]), feeds("x", batches)),
            FloatSegment(second, output_layers(second, ["final_outputs"]), feeds("border", given)),
        ]
        return [precision(part).SerializeToString() for part in parts]

    return make


@pytest.mark.parametrize("kept", [["final_outputs"], ["exit1_outputs", "final_outputs", "border"]])
@pytest.mark.parametrize("start", STARTS)
def test_what_is_joined_is_bit_for_bit_what_is_apart(segments: Segments, start: str, kept: list[str]) -> None:
    apart = segments(uint8, start)
    whole = cpu_session(joined(apart, kept) or b"", threads=1)
    first, second = (cpu_session(content, threads=1) for content in apart)
    for rows in (1, 2, 7, 32):
        x = np.random.default_rng(rows).normal(size=(rows, 3, 6, 6)).astype(np.float32)
        expected = dict(zip(["border", "exit1_outputs"], first.run(["border", "exit1_outputs"], {"x": x}), strict=True))
        (expected["final_outputs"],) = second.run(["final_outputs"], {"border": expected["border"]})
        for name, value in zip(kept, whole.run(kept, {"x": x}), strict=True):
            assert value.tobytes() == expected[name].tobytes()


def test_codes_go_from_one_to_the_next_without_another_kernel(segments: Segments, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    content = joined(segments(uint8), ["final_outputs"])
    onnx.checker.check_model(onnx.load_from_string(content or b""), full_check=True)
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert (kernels["QLinearConv"], kernels["QLinearAdd"], kernels["QuantizeLinear"]) == (4, 2, 1)  # the input alone


def test_scales_whose_last_bit_differs_are_joined(segments: Segments) -> None:
    """The range of a border is measured in both graphs, by sums in another order."""
    first, second = segments(uint8)
    changed = onnx.load_from_string(second)
    scale = next(tensor for tensor in changed.graph.initializer if tensor.name == "border_scale")
    value = numpy_helper.to_array(scale)
    scale.CopyFrom(numpy_helper.from_array(np.nextafter(value, np.float32(1)), scale.name))
    whole = cpu_session(joined([first, changed.SerializeToString()], ["final_outputs"]) or b"", threads=1)
    x = np.random.default_rng(0).normal(size=(9, 3, 6, 6)).astype(np.float32)
    (border,) = cpu_session(first, threads=1).run(["border"], {"x": x})
    (expected,) = cpu_session(changed.SerializeToString(), threads=1).run(None, {"border": border})
    assert whole.run(None, {"x": x})[0].tobytes() == expected.tobytes()
    scale.CopyFrom(numpy_helper.from_array(value * np.float32(1.01), scale.name))
    assert joined([first, changed.SerializeToString()], ["final_outputs"]) is None


def test_signed_codes_stay_apart(segments: Segments) -> None:
    assert joined(segments(int8), ["final_outputs"]) is None


def test_floats_that_a_later_graph_quantises_stay_apart(graph: Graph, segments: Segments) -> None:
    """A border that a Relu gives, and not a DequantizeLinear; and one that ends in an ensemble of outputs."""
    first, second = (onnx.load_from_string(content) for content in segments(uint8))
    for node in first.graph.node:
        node.output[:] = ["codes-of-border" if name == "border" else name for name in node.output]
        node.input[:] = ["codes-of-border" if name == "border" else name for name in node.input]
    first.graph.node.append(helper.make_node("Relu", ["codes-of-border"], ["border"]))
    assert joined([first.SerializeToString(), second.SerializeToString()], ["final_outputs"]) is None
    ensemble = helper.make_graph(
        [helper.make_node("Add", ["exit1_outputs", "exit1_outputs"], ["twice"])],
        "g",
        [helper.make_tensor_value_info("exit1_outputs", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["batch", 4])],
    )
    outputs = helper.make_model(ensemble, opset_imports=first.opset_import, ir_version=first.ir_version)
    assert joined([first.SerializeToString(), outputs.SerializeToString()], ["twice"])  # nothing is quantised after it
