"""Brain floats (8 bits of exponent, 7 of fraction): the range of float32, where a runtime has kernels for them."""

from __future__ import annotations

import onnx

from sdcompress.errors import UsageError
from sdcompress.exporting.older import NEWER
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.typed import typed

__all__ = ["bf16"]

_OPSET = 22  # the first in which Conv, pooling and others know the type
_IR = 10  # the format's own version that came with it, which the converter leaves as it was


def bf16(segment: FloatSegment) -> onnx.ModelProto:
    """Everything but the logits, softmax and normalisation in bfloat16.

    Raises:
        UsageError: if the export was asked to have an opset for older runtimes: they could not read what this makes.
    """
    model = segment.model
    opset = next(opset.version for opset in model.opset_import if not opset.domain)
    if opset < NEWER:
        raise UsageError(
            f"The graphs were exported with opset {opset}, for runtimes that read no newer one; bf16 needs {_OPSET}.",
            allowed=f"graphs of opset {NEWER} and above",
            next_step="--precision fp16, which keeps the opset; or export again without --opset",
        )
    if opset < _OPSET:
        model = onnx.version_converter.convert_version(model, _OPSET)
        model.ir_version = max(model.ir_version, _IR)
    return typed(model, onnx.TensorProto.BFLOAT16, segment.tail)
