"""Try a precision on a tiny network, before hours of training that are meant for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.modalities import Inputs
from sdcompress.onnx_graph.tensorrt8 import DYNAMO_OPSET
from sdcompress.quantizing.precisions._base import Feed, FloatSegment
from sdcompress.quantizing.quantize import precision_of, runnable
from sdcompress.quantizing.segments import output_layers, without_signals
from sdcompress.verification.sessions import SegmentSessions

__all__ = ["try_precision"]

_CHANNELS, _PIXELS = 32, 4  # as many channels as every precision has kernels for


def try_precision(name: str, *, opset: int) -> None:
    """Check that a precision supports an opset and runs on this machine.

    Args:
        name: of 'sdcompress list precisions'.
        opset: of the float32 graphs.

    Raises:
        UnknownNameError: if there is no such precision.
        UsageError: if it does not support graphs of this opset.
        SetupError: if ONNX Runtime cannot run it here.
    """
    model = without_signals(_network(opset), ())
    values = np.random.default_rng(0).normal(size=(2, _CHANNELS, _PIXELS, _PIXELS)).astype(np.float32)

    def feeds() -> Iterator[Feed]:
        yield {"x": values}

    rewritten = precision_of(name)(FloatSegment(model, output_layers(model, ["logits"]), feeds))
    with runnable(name):
        SegmentSessions([rewritten.SerializeToString()], outputs=["logits"], threads=1)(Inputs({"x": values}))


def _network(opset: int) -> onnx.ModelProto:
    """A convolution, a ReLU and a linear layer."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (_CHANNELS, _CHANNELS, 3, 3), "b0": (_CHANNELS,), "w1": (3, _CHANNELS), "b1": (3,)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w0", "b0"], ["c"], pads=[1, 1, 1, 1], name="conv"),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
            helper.make_node("Gemm", ["f", "w1", "b1"], ["logits"], transB=1, name="linear"),
        ],
        "tried",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", _CHANNELS, _PIXELS, _PIXELS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), n) for n, shape in shapes.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < DYNAMO_OPSET else 10
    )
