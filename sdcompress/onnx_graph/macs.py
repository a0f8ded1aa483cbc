"""Count the multiply-accumulates for one image and the parameters of an ONNX graph, from its shapes."""

from __future__ import annotations

import math
import re

import onnx

from sdcompress.errors import UsageError
from sdcompress.onnx_graph.dataflow import Dataflow, Kind
from sdcompress.onnx_graph.edit import copy_model

__all__ = ["macs", "parameters"]


def macs(model: onnx.ModelProto, *, batch: str = "batch") -> int:
    """Multiply-accumulates for one image, of convolutions, matrix products and attention only.

    Args:
        model: its axes are numbers, the batch, or multiples of the batch (``64*batch``: windows, heads).
        batch: name of the batch axis.

    Raises:
        UsageError: if a product's shape does not follow from the batch.
    """
    single = copy_model(model)
    for value in (*single.graph.input, *single.graph.output, *single.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if match := re.fullmatch(rf"(?:(\d+)\*)?{re.escape(batch)}", axis.dim_param):
                axis.dim_value = int(match[1] or 1)
    flow = Dataflow(onnx.shape_inference.infer_shapes(single, data_prop=True))
    return sum(_node_macs(flow, node) for node, kind in zip(flow.nodes, flow.kinds, strict=True) if kind is Kind.DATA)


def parameters(model: onnx.ModelProto) -> int:
    """The number of elements of all stored weight tensors of two or more elements.

    Weights that the exporter merged (batch norm into convolution) are counted as stored. Scalars are left out: they
    are constants of formulas, such as the 3 and 6 of a hard swish. Quantised weights count as the floats that they
    stand for; their scales and zero points do not count.
    """
    floating = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
    rounding = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    codes = {node.input[0] for node in rounding if node.op_type == "DequantizeLinear"}
    scales = {name for node in rounding for name in node.input[1:]}
    sizes = (
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if (tensor.data_type in floating and tensor.name not in scales) or tensor.name in codes
    )
    return sum(size for size in sizes if size > 1)


def _node_macs(flow: Dataflow, node: onnx.NodeProto) -> int:
    if node.op_type == "Conv":  # weight [out, in / groups, *kernel]
        return _size(flow, node.output[0]) * math.prod(_shape(flow, node.input[1])[1:])
    if node.op_type == "ConvTranspose":  # weight [in, out / groups, *kernel]
        return _size(flow, node.input[0]) * math.prod(_shape(flow, node.input[1])[1:])
    if node.op_type in {"MatMul", "Gemm"}:
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return _size(flow, node.output[0]) * _shape(flow, node.input[0])[-2 if transposed else -1]
    if node.op_type == "Attention":  # opset 23: queries with keys, then the weights with values
        queries, keys = node.input[:2]
        return (_size(flow, queries) + _size(flow, node.output[0])) * _shape(flow, keys)[-2]
    return 0


def _size(flow: Dataflow, tensor: str) -> int:
    return math.prod(_shape(flow, tensor))


def _shape(flow: Dataflow, tensor: str) -> list[int]:
    if tensor in flow.initializers:
        return list(flow.initializers[tensor].dims)
    axes = flow.axes(tensor)
    sizes = [axis for axis in axes or () if isinstance(axis, int)]
    if axes is None or len(sizes) < len(axes):
        raise UsageError(
            f"The multiply-accumulates cannot be counted: '{tensor}' has the axes {axes} for one image.",
            allowed="sizes that follow from the batch alone",
            next_step="choose a backbone whose shapes do not depend on the values of the image",
        )
    return sizes
