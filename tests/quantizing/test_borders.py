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


@pytest.fixture(scope="module")
def models(residual: onnx.ModelProto, graph: Graph) -> list[onnx.ModelProto]:
    """The residual block with its head, and a second one that reads the first by a convolution and by its sum."""
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Conv", ["border", "w0"], ["c0"], pads=[1, 1, 1, 1], name="third"),
        helper.make_node("Add", ["c0", "border"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("AveragePool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w1"], ["final_outputs"], transB=1, name="logits"),
    ]
    weights = {
        name: rng.normal(scale=0.2, size=shape).astype(np.float32)
        for name, shape in {"w0": (8, 8, 3, 3), "w1": (4, 72)}.items()
    }
    second = graph(nodes, {"border": ["batch", 8, 6, 6]}, {"final_outputs": ["batch", 4]}, weights)
    return [residual, second]


@pytest.fixture(scope="module")
def segments(models: list[onnx.ModelProto], batches: list[np.ndarray]) -> Segments:
    """``segments(precision)``: both in that precision, calibrated with their inputs in float32."""
    session = cpu_session(models[0].SerializeToString(), threads=1)
    given = [session.run(["border"], {"x": batch})[0] for batch in batches]

    def make(precision: Callable[[FloatSegment], onnx.ModelProto]) -> list[bytes]:
        def feeds(name: str, arrays: list[np.ndarray]) -> Callable[[], Iterator[Feed]]:
            return lambda: iter([{name: array} for array in arrays])

        logits = ["exit1_outputs", "final_outputs"]
        return [
            precision(FloatSegment(model, output_layers(model, [name]), fed)).SerializeToString()
            for model, name, fed in zip(models, logits, [feeds("x", batches), feeds("border", given)], strict=True)
        ]

    return make


@pytest.mark.parametrize("kept", [["final_outputs"], ["exit1_outputs", "final_outputs", "border"]])
def test_what_is_joined_is_bit_for_bit_what_is_apart(segments: Segments, kept: list[str]) -> None:
    apart = segments(uint8)
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
    assert (kernels["QLinearConv"], kernels["QLinearAdd"], kernels["QuantizeLinear"]) == (3, 2, 1)  # the input alone


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
