"""Half precision floats (5 bits of exponent): half the size anywhere, faster on GPUs."""

from __future__ import annotations

import onnx

from sdcompress.quantizing.float16_range import clip_fills, vanishing_paths
from sdcompress.quantizing.float_cast import cast_floats
from sdcompress.quantizing.precisions._base import FloatSegment

__all__ = ["fp16"]


def fp16(segment: FloatSegment) -> onnx.ModelProto:
    """Everything but the logits, softmax and normalisation in float16; numbers above 65504 would be infinite.

    Nodes that depend on a constant that is zero in float16 stay in float32 too.
    """
    model = clip_fills(segment.model, segment.output_layers)
    return cast_floats(model, onnx.TensorProto.FLOAT16, segment.output_layers | vanishing_paths(model))
