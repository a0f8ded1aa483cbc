"""8-bit integers with unsigned activations: faster than int8 on x86 CPUs, and not for TensorRT."""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnxruntime.quantization import QuantType

from sdcompress.onnx_graph.edit import copy_model
from sdcompress.onnx_graph.resizes import multiply_resizes
from sdcompress.quantizing.embeddings import halve_embeddings
from sdcompress.quantizing.insert_qdq import quantize_integers
from sdcompress.quantizing.integer_rewrites import quantize_gemm_biases
from sdcompress.quantizing.precisions._base import FloatSegment

__all__ = ["uint8"]


def uint8(segment: FloatSegment) -> onnx.ModelProto:
    """Codes 0..255 for activations with a zero point by their range; one pair for each tensor.

    ONNX Runtime's x86 kernels multiply this form directly. It converts signed codes only for tensors with one reader
    (see ``int8``), so that int8 quantises the input of a residual block twice.

    Of tokens [B, N, C] only the inputs of products are rounded. The kernels give floats as fast as codes, and rounding
    outputs and residual sums too puts the logits of MiniLM several times as far from float32 (``docs/quantize.md``).
    At the end of a classifier the mean over the map and the last Gemm are computed in integers too.
    Tables of embeddings are stored as float16. Every bilinear Resize that products are faster than is replaced: between
    integers it has no fast kernel.
    """
    float_model = copy_model(segment.model)
    multiply_resizes(float_model)
    options = {"ActivationSymmetric": False, "DedicatedQDQPair": False}
    model = quantize_integers(replace(segment, model=float_model), QuantType.QUInt8, options, tokens_between=False)
    quantize_gemm_biases(model.graph)
    halve_embeddings(model.graph)
    return model
