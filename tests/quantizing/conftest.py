"""Graphs of known arithmetic, small enough to be worked out with numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress.quantizing.precisions._base import Feed, FloatSegment
from sdcompress.quantizing.segments import output_layers

FLOAT = TensorProto.FLOAT
Shape = list[int | str]


@pytest.fixture(scope="session")
def graph() -> Callable[..., onnx.ModelProto]:
    """``graph(nodes, inputs={"x": shape}, outputs={...}, weights={...})``: a checked model with inferred shapes."""

    def make(
        nodes: list[onnx.NodeProto],
        inputs: dict[str, Shape],
        outputs: dict[str, Shape],
        weights: dict[str, np.ndarray],
        *,
        opset: int = 18,
        ir: int = 10,
    ) -> onnx.ModelProto:
        inside = helper.make_graph(
            nodes,
            "segment",
            [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        )
        model = helper.make_model(inside, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model)

    return make


@pytest.fixture(scope="session")
def residual(graph: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    """A residual block and a linear layer: relu(conv(x)) is read by a convolution and by the sum."""
    return _residual(graph, channels=3, width=8)


@pytest.fixture(scope="session")
def wide_residual(graph: Callable[..., onnx.ModelProto]) -> onnx.ModelProto:
    """The same with as many channels everywhere as any precision asks for."""
    return _residual(graph, channels=32, width=32)


def _residual(graph: Callable[..., onnx.ModelProto], *, channels: int, width: int) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1], name="first"),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], name="second"),
        helper.make_node("Add", ["c1", "r0"], ["s"]),
        helper.make_node("Relu", ["s"], ["border"]),
        helper.make_node("GlobalAveragePool", ["border"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w2", "b2"], ["exit1_outputs"], transB=1, name="last"),
    ]
    shapes = {
        "w0": (width, channels, 3, 3), "w1": (width, width, 3, 3), "w2": (4, width),
        "b0": (width,), "b1": (width,), "b2": (4,),
    }  # fmt: skip
    scale = 0.3 * (8 / width) ** 0.5  # so that what they add up to is as large in both
    weights = {name: rng.normal(scale=scale, size=shape).astype(np.float32) for name, shape in shapes.items()}
    outputs: dict[str, Shape] = {"border": ["batch", width, 6, 6], "exit1_outputs": ["batch", 4]}
    return graph(nodes, {"x": ["batch", channels, 6, 6]}, outputs, weights)


@pytest.fixture(scope="session")
def batches() -> list[np.ndarray]:
    """What ``residual`` is calibrated with."""
    rng = np.random.default_rng(4)
    return [rng.normal(size=(16, 3, 6, 6)).astype(np.float32) for _ in range(3)]


@pytest.fixture(scope="session")
def wide_batches() -> list[np.ndarray]:
    """What ``wide_residual`` is calibrated with."""
    rng = np.random.default_rng(4)
    return [rng.normal(size=(16, 32, 6, 6)).astype(np.float32) for _ in range(3)]


@pytest.fixture(scope="session")
def segment_of() -> Callable[..., FloatSegment]:
    """``segment_of(model, batches, logits=("y",))`` for a model of the one input "x"."""

    def make(model: onnx.ModelProto, batches: list[np.ndarray], logits: tuple[str, ...] = ()) -> FloatSegment:
        def feeds() -> Iterator[Feed]:
            return iter([{"x": batch} for batch in batches])

        return FloatSegment(model, output_layers(model, logits), feeds)

    return make
