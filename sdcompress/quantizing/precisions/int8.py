"""8-bit integers: weights per channel, activations by their range on training images; for CPUs and TensorRT."""

from __future__ import annotations

from collections import Counter

import onnx
from onnxruntime.quantization import QuantType

from sdcompress.quantizing.integers import in_integers
from sdcompress.quantizing.precisions._base import FloatSegment

__all__ = ["int8"]

_OPTIONS = {
    "ActivationSymmetric": True,  # TensorRT takes signed codes and zero points of 0 only
    "DedicatedQDQPair": True,  # for each reader of a tensor a pair of its own, see _tell_apart
}


def int8(segment: FloatSegment) -> onnx.ModelProto:
    """Signed codes, -128..127 for activations: one graph for ONNX Runtime and for TensorRT."""
    model = in_integers(segment, QuantType.QInt8, _OPTIONS)
    _tell_apart(model.graph)
    return model


def _tell_apart(graph: onnx.GraphProto) -> None:
    """Let pairs of the same tensor differ in ``axis``, which means nothing where there is one scale for a tensor.

    On x86 ONNX Runtime has fast kernels for unsigned activations, and turns signed codes into them where a
    QuantizeLinear has one reader. Equal ones are merged before, and what reads a tensor twice, as every residual block
    does, would run in float32 between conversions, slower than without them.
    """
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    seen: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            tensor = node.input[0]
            earlier, seen[tensor] = seen[tensor], seen[tensor] + 1
            rank = ranks.get(tensor, 2)
            axes = [1, *(axis for axis in range(-rank, rank) if axis != 1)]
            if earlier and rank > 1:
                node.attribute.append(onnx.helper.make_attribute("axis", axes[min(earlier, len(axes) - 1)]))
