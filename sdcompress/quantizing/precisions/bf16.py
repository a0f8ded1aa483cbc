"""Brain floats (8 bits of exponent, 7 of fraction): the range of float32, where a runtime has kernels for them."""

from __future__ import annotations

import onnx

from sdcompress.quantizing.float_cast import cast_floats
from sdcompress.quantizing.opset import upgrade_opset
from sdcompress.quantizing.precisions._base import FloatSegment

__all__ = ["bf16"]

_OPSET = 22  # the first in which Conv, pooling and others know the type
_IR = 10


def bf16(segment: FloatSegment) -> onnx.ModelProto:
    """Everything but the logits, softmax and normalisation in bfloat16."""
    return cast_floats(upgrade_opset(segment.model, _OPSET, ir=_IR), onnx.TensorProto.BFLOAT16, segment.output_layers)
