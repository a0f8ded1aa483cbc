"""8-bit integers: weights per channel, activations by their range on training images; for CPUs and TensorRT."""

from __future__ import annotations

from collections import Counter

import onnx
from onnxruntime.quantization import QuantType

from sdcompress.quantizing.insert_qdq import quantize_integers
from sdcompress.quantizing.precisions._base import FloatSegment

__all__ = ["int8"]

_OPTIONS = {
    "ActivationSymmetric": True,  # TensorRT takes signed codes and zero points of 0 only
    "DedicatedQDQPair": True,  # a separate pair for each reader of a tensor, see _make_pairs_distinct
}


def int8(segment: FloatSegment) -> onnx.ModelProto:
    """Signed codes, -128..127 for activations: one graph for ONNX Runtime and for TensorRT."""
    model = quantize_integers(segment, QuantType.QInt8, _OPTIONS)
    _make_pairs_distinct(model.graph)
    return model


def _make_pairs_distinct(graph: onnx.GraphProto) -> None:
    """Give pairs of the same tensor a different ``axis``, which has no effect where a tensor has one scale.

    On x86 ONNX Runtime has fast kernels for unsigned activations. It converts signed codes to unsigned where a
    QuantizeLinear has one reader, but merges equal pairs before. So the readers of a tensor in a residual block would
    run in float32 between conversions, slower than without quantisation.
    """
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    pairs: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            tensor = node.input[0]
            earlier, pairs[tensor] = pairs[tensor], pairs[tensor] + 1
            rank = ranks.get(tensor, 2)
            axes = [1, *(axis for axis in range(-rank, rank) if axis != 1)]
            if earlier and rank > 1:
                node.attribute.append(onnx.helper.make_attribute("axis", axes[min(earlier, len(axes) - 1)]))
