"""Half precision floats (5 bits of exponent): half the size anywhere, faster on GPUs."""

from __future__ import annotations

import onnx

from sdcompress.quantizing.fills import within_float16
from sdcompress.quantizing.float_cast import typed
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.vanishing import guarded

__all__ = ["fp16"]


def fp16(segment: FloatSegment) -> onnx.ModelProto:
    """Everything but the logits, softmax and normalisation in float16; numbers above 65504 would be infinite.

    What hangs on a constant that float16 takes for zero stays float32 too.
    """
    model = within_float16(segment.model)
    return typed(model, onnx.TensorProto.FLOAT16, segment.tail | guarded(model))
