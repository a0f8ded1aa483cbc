"""Quantise weights and activations of a float32 graph to 8-bit integers, by ``QDQQuantizer`` of onnxruntime.

The choices here hold for int8 and uint8 alike. These differ in the codes of activations and in their pairs of
QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from sdcompress.onnx_graph.dataflow import number_attribute
from sdcompress.onnx_graph.edit import copy_model
from sdcompress.onnx_graph.resizes import is_interpolation
from sdcompress.quantizing.bias_correction import correct_biases
from sdcompress.quantizing.integer_rewrites import clip_bounds, extract_padding, pool_means, split_clips
from sdcompress.quantizing.precisions._base import PRODUCTS, FloatSegment
from sdcompress.quantizing.ranges import Ranges, measure_ranges

__all__ = ["quantize_integers"]

# Operators that compute in integers, and those that only pass integers on. All others stay float32: normalisation,
# softmax, and squashing functions (a sigmoid in 8 bits is a confidence in 8 bits). The list must hold every operator
# that onnxruntime moves a pair through: from opset 21 on it refuses the types of its own pairs (of a Slice, 1.32).
_OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Relu", "Clip"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Pad"),
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice"),
)

_OPTIONS = {
    "WeightSymmetric": True,
    "QuantizeBias": False,  # in float32, the only form that TensorRT takes; uint8 makes integers of some
    "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
}


def quantize_integers(
    segment: FloatSegment, activations: QuantType, options: dict[str, Any], *, tokens_between: bool = True
) -> onnx.ModelProto:
    """Return a copy with pairs of QuantizeLinear and DequantizeLinear around all nodes that compute in integers.

    A weight's code q, -64..64, means scale * q, where scale is an output channel's largest weight over 64. Weights use
    7 bits because x86 processors without VNNI add two products in 16 bits, which 127 * 255 + 127 * 255 overflows.
    Accuracy would depend on the processor.

    Args:
        segment: to be rewritten.
        activations: type of their codes; each tensor has one scale, from its range on training images.
        options: further options of the quantizer.
        tokens_between: also quantise what lies between products of tokens: their outputs, and sums of tokens.
    """
    float_model = _separate_weights(segment.model)
    extract_padding(float_model.graph)
    if activations == QuantType.QUInt8:  # Clips stay where codes are signed
        split_clips(float_model.graph, segment.output_layers)
        excluded = set(_excluded(float_model.graph, segment.output_layers))
        quantised = {node.name for node in float_model.graph.node if node.op_type in _OPERATORS} - excluded
        pool_means(float_model.graph, segment.output_layers, quantised)
    ranges = measure_ranges(float_model, _activations(float_model.graph), segment.feeds(), threads=segment.threads)
    with tempfile.TemporaryDirectory(prefix="sdcompress-") as folder, _quiet_quantizer():
        out = Path(folder) / "integers.onnx"
        quantizer = QDQQuantizer(
            float_model,
            per_channel=True,
            reduce_range=True,  # the 7 bits
            weight_qType=QuantType.QInt8,
            activation_qType=activations,
            tensors_range=_tensors_data(ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=_excluded(float_model.graph, segment.output_layers)
            + _not_finite(float_model.graph, ranges)
            + ([] if tokens_between else _token_sums(float_model.graph)),
            op_types_to_quantize=list(_OPERATORS),
            extra_options=_OPTIONS
            | ({} if tokens_between else {"OpTypesToExcludeOutputQuantization": ["MatMul"]})
            | options,
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(out)  # which sorts the nodes
        model = onnx.load(out)
    _remove_output_pairs(model.graph, segment.output_layers)
    correct_biases(model, float_model, segment.feeds(), threads=segment.threads)
    return model


@contextlib.contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """Drop what the quantizer logs within the block: advice about nodes that are treated so on purpose.

    It logs by the root logger. Where that has no handler, the first message would give it one that prints what any
    library of the program logs.
    """
    root, handler, package = logging.getLogger(), logging.NullHandler(), Path(onnxruntime.__file__).parent

    def is_of_others(record: logging.LogRecord) -> bool:
        return package not in Path(record.pathname).parents

    root.addHandler(handler)
    root.addFilter(is_of_others)
    try:
        yield
    finally:
        root.removeFilter(is_of_others)
        root.removeHandler(handler)


def _activations(graph: onnx.GraphProto) -> frozenset[str]:
    """The float32 tensors that may be quantised, without stored ones."""
    stored = {tensor.name for tensor in graph.initializer}
    values = (*graph.value_info, *graph.input, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT} - stored
    used = {name for node in graph.node if node.op_type in _OPERATORS for name in (*node.input, *node.output)}
    return frozenset(used & floats)


def _tensors_data(ranges: Ranges) -> TensorsData:
    """The ranges in the quantizer's form."""
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.extremes.items()
        },
    )


def _separate_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name of its own, and each weight is read along one axis, by products alone.

    The quantizer gives a weight that is read along two axes the scales of the last one, which lose small channels of
    the other. It gives the rounded weight to all nodes that read it, such as the Gather of an embedding.
    """
    prepared = copy_model(model)
    stored = {tensor.name: tensor for tensor in prepared.graph.initializer}
    axes: dict[str, int] = {}
    _name_nodes(prepared.graph)
    read_by_others = {name for node in prepared.graph.node if node.op_type not in PRODUCTS for name in node.input}
    for node in prepared.graph.node:
        if node.op_type not in PRODUCTS or node.input[1] not in stored:
            continue
        weight, axis = node.input[1], _axis(node)
        if weight in read_by_others or axes.setdefault(weight, axis) != axis:
            node.input[1] = f"{weight}/axis-{axis}"
            if node.input[1] not in stored:
                copy = prepared.graph.initializer.add()
                copy.CopyFrom(stored[weight])
                copy.name = node.input[1]
                stored[copy.name] = copy
    return prepared


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name the nodes that have no name, or that of an earlier node, in place: nodes are found by their names."""
    taken, named = {node.name for node in graph.node}, set[str]()
    for position, node in enumerate(graph.node):
        if not node.name or node.name in named:
            node.name = f"{node.name or node.op_type}-{position}"
            while node.name in taken:
                node.name += "-again"
        taken.add(node.name)
        named.add(node.name)


def _excluded(graph: onnx.GraphProto, output_layers: frozenset[str]) -> list[str]:
    """The names of the nodes that stay in float32.

    These are the output layers; products of data with data, because attention loses more than it gains; interpolation,
    whose matrices are no weights; and nodes that onnxruntime quantises wrongly, see ``_misquantised``.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    return [
        node.name
        for node in graph.node
        if is_interpolation(node)
        or _misquantised(node, stored, outputs)
        or (not stored.keys() & set(node.input[:2]) if node.op_type in PRODUCTS else output_layers & set(node.output))
    ]


def _token_sums(graph: onnx.GraphProto) -> list[str]:
    """The names of the sums of tokens, [B, N, C]: residual connections, whose range grows from layer to layer."""
    values = (*graph.value_info, *graph.input, *graph.output)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    return [node.name for node in graph.node if node.op_type == "Add" and ranks.get(node.output[0]) == 3]


def _misquantised(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto], outputs: set[str]) -> bool:
    """Whether onnxruntime (1.32) would quantise a node wrongly.

    Its quantizer rounds a stored summand (a linear's bias, the epsilon under a root, the 1 of GELU) to the codes of one
    scale. It drops ``beta`` of a Gemm without scaling the bias, and fails if the bias has not one value per channel. It
    gives a tensor that only a Relu or Clip reads the range of the result, even if the tensor is an output of the graph.
    A Clip with computed bounds has no range.
    """
    if node.op_type == "Gemm":
        weight, bias = (stored.get(name) for name in (*node.input[1:], "")[:2])
        is_broadcast = weight is not None and bias is not None and list(bias.dims) != [weight.dims[_axis(node)]]
        return is_broadcast or number_attribute(node, "beta", 1.0) != 1
    if node.op_type == "Add":
        return bool(stored.keys() & set(node.input))
    if node.op_type == "Clip" and clip_bounds(node, stored) is None:
        return True
    return node.op_type in {"Relu", "Clip"} and node.input[0] in outputs


def _not_finite(graph: onnx.GraphProto, ranges: Ranges) -> list[str]:
    """The names of nodes with infinities or with padding below all data, which no code represents."""
    return [
        node.name for node in graph.node if node.name in ranges.fills or ranges.infinite & {*node.input, *node.output}
    ]


def _axis(product: onnx.NodeProto) -> int:
    """The channel axis of a product's weights, along which scales differ."""
    if product.op_type == "Gemm":
        return 0 if number_attribute(product, "transB", 0) else 1
    return 0 if product.op_type == "Conv" else 1


def _remove_output_pairs(graph: onnx.GraphProto, output_layers: frozenset[str]) -> None:
    """Remove the pairs that would quantise the output layers, logits above all, to 255 values."""
    readers = defaultdict[str, list[onnx.NodeProto]](list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    for quantize in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        dequantizes = readers[quantize.output[0]]
        restored = [node.output[0] for node in dequantizes]
        exact = quantize.input[0]
        if not output_layers & {exact, *restored}:
            continue
        # an output of the graph keeps its name
        name = next((candidate for candidate in restored if candidate in output_layers), exact)
        for node in (quantize, *dequantizes):
            graph.node.remove(node)
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [name if candidate in {exact, *restored} else candidate for candidate in names]
