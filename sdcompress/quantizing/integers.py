"""Round activations and weights of a float32 graph to 8-bit integers, by ``QDQQuantizer`` of onnxruntime.

What is decided here holds for every precision made of such integers; what differs between them are codes and pairs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from sdcompress.quantizing.clips import bounds, split_clips
from sdcompress.quantizing.pools import count_inside
from sdcompress.quantizing.precisions._base import PRODUCTS, FloatSegment
from sdcompress.quantizing.ranges import Ranges, measured

__all__ = ["in_integers"]

# What computes in integers, and what only passes integers on. Everything else stays float32: normalisation, softmax,
# and what squashes (a sigmoid in 8 bits is a confidence in 8 bits). Whatever onnxruntime pushes a pair through must be
# among them: from opset 21 on, pairs that it makes itself (of a Slice, 1.32) have types that it then refuses.
_OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Relu", "Clip"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Pad"),
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice"),
)

_OPTIONS = {
    "WeightSymmetric": True,
    "QuantizeBias": False,  # in float32, the only form that TensorRT takes; as integers they are no faster on a CPU
    "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
}


def in_integers(segment: FloatSegment, activations: QuantType, options: dict[str, Any]) -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear around what is to compute in integers.

    A code q of a weight stands for scale * q, q in -64..64, where the scale is the largest of an output channel over
    64. Weights do without their eighth bit because x86 processors older than VNNI add two products in 16 bits and would
    cut off what 127 * 255 + 127 * 255 is: accuracy and certificates would be those of the processor, not of the file.

    Args:
        segment: to be rewritten.
        activations: their type; one scale for each tensor, by its range on training images.
        options: further ones of the quantizer.
    """
    float_model = _prepared(segment.model)
    count_inside(float_model.graph)
    if activations == QuantType.QUInt8:  # Clips stay where codes are signed
        split_clips(float_model.graph, segment.tail)
    ranges = measured(float_model, _activations(float_model.graph), segment.feeds(), threads=segment.threads)
    with tempfile.TemporaryDirectory(prefix="sdcompress-") as folder:
        out = Path(folder) / "integers.onnx"
        quantizer = QDQQuantizer(
            float_model,
            per_channel=True,
            reduce_range=True,  # the 7 bits
            weight_qType=QuantType.QInt8,
            activation_qType=activations,
            tensors_range=_tensors_data(ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=_left_alone(float_model.graph, segment.tail) + _not_finite(float_model.graph, ranges),
            op_types_to_quantize=list(_OPERATORS),
            extra_options=_OPTIONS | options,
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(out)  # which sorts the nodes
        model = onnx.load(out)
    _unround(model.graph, segment.tail)
    return model


def _activations(graph: onnx.GraphProto) -> frozenset[str]:
    """The float32 tensors that may be rounded, but for what is stored."""
    stored = {tensor.name for tensor in graph.initializer}
    values = (*graph.value_info, *graph.input, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT} - stored
    used = {name for node in graph.node if node.op_type in _OPERATORS for name in (*node.input, *node.output)}
    return frozenset(used & floats)


def _tensors_data(ranges: Ranges) -> TensorsData:
    """The ranges as the quantizer takes them."""
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.extremes.items()
        },
    )


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name to be left out by, and a weight is read along one axis.

    A weight that is read along two would get the scales of the last and lose small channels for the other.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    axes: dict[str, int] = {}
    for position, node in enumerate(made.graph.node):
        node.name = node.name or f"{node.op_type}-{position}"
        if node.op_type not in PRODUCTS or node.input[1] not in stored:
            continue
        weight, axis = node.input[1], _axis(node)
        if axes.setdefault(weight, axis) != axis:
            node.input[1] = f"{weight}/axis-{axis}"
            if node.input[1] not in stored:
                copy = made.graph.initializer.add()
                copy.CopyFrom(stored[weight])
                copy.name = node.input[1]
                stored[copy.name] = copy
    return made


def _left_alone(graph: onnx.GraphProto, tail: frozenset[str]) -> list[str]:
    """The nodes that compute in float32, by name.

    What comes after the last product; what multiplies data with data, because attention loses more than it gains; and
    what onnxruntime gets wrong, see ``_misread``.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    return [
        node.name
        for node in graph.node
        if _misread(node, stored, outputs)
        or (not stored.keys() & set(node.input[:2]) if node.op_type in PRODUCTS else tail & set(node.output))
    ]


def _misread(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto], outputs: set[str]) -> bool:
    """Whether onnxruntime (1.32) would compute something else in integers than the node says.

    Its quantizer rounds a stored summand (a linear's bias, the epsilon under a root, the 1 of GELU) to the codes of one
    scale, and drops ``beta`` of a Gemm without scaling the bias by it. What only a Relu or Clip reads gets the range of
    its result, although it may leave the graph, too. A Clip with computed bounds has no range of its own.
    """
    if node.op_type == "Gemm":
        return _attribute(node, "beta", 1.0) != 1
    if node.op_type == "Add":
        return bool(stored.keys() & set(node.input))
    if node.op_type == "Clip" and bounds(node, stored) is None:
        return True
    return node.op_type in {"Relu", "Clip"} and node.input[0] in outputs


def _not_finite(graph: onnx.GraphProto, ranges: Ranges) -> list[str]:
    """The nodes that compute in float32, by name: no code stands for an infinity, nor for padding below all data."""
    return [
        node.name for node in graph.node if node.name in ranges.fills or ranges.infinite & {*node.input, *node.output}
    ]


def _axis(product: onnx.NodeProto) -> int:
    """The axis of a product's weights that has a scale for each channel."""
    if product.op_type == "Gemm":
        return 0 if _attribute(product, "transB", 0) else 1
    return 0 if product.op_type == "Conv" else 1


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    return next((onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def _unround(graph: onnx.GraphProto, tail: frozenset[str]) -> None:
    """Take the pairs away that would round what the last product gives, logits above all, to 255 values."""
    for first in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        lasts = [node for node in graph.node if first.output[0] in node.input]
        known = [node.output[0] for node in lasts]
        exact = first.input[0]
        if not tail & {exact, *known}:
            continue
        name = next((each for each in known if each in tail), exact)  # an output of the graph keeps its name
        for node in (first, *lasts):
            graph.node.remove(node)
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [name if each in {exact, *known} else each for each in names]
