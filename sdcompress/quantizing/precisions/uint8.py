"""8-bit integers with unsigned activations: faster than int8 on x86 CPUs, and not for TensorRT."""

from __future__ import annotations

import onnx
from onnxruntime.quantization import QuantType

from sdcompress.quantizing.integers import in_integers
from sdcompress.quantizing.precisions._base import FloatSegment

__all__ = ["uint8"]


def uint8(segment: FloatSegment) -> onnx.ModelProto:
    """Codes 0..255 for activations, whose zero point is where their range says; one pair for each tensor.

    The form that ONNX Runtime's x86 kernels multiply as it stands. Signed codes it must turn into this one, which it
    does only for tensors with one reader (see ``int8``), so that a residual block is rounded twice there.
    """
    return in_integers(segment, QuantType.QUInt8, {"ActivationSymmetric": False, "DedicatedQDQPair": False})
