"""Count the multiply-accumulates for one sample and the parameters of an ONNX graph, from its shapes."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

import onnx

from sdcompress.errors import UsageError
from sdcompress.onnx_graph.dataflow import Dataflow, Dependence, number_attribute
from sdcompress.onnx_graph.edit import copy_model
from sdcompress.onnx_graph.resizes import is_interpolation

__all__ = ["macs", "parameters"]


def macs(model: onnx.ModelProto, sizes: Mapping[str, int]) -> int:
    """Return multiply-accumulates for one sample, of convolutions, products, attention and recurrent layers only.

    Bilinear interpolation counts nothing, in whatever form: costs in torch, and targets of pruning, have none of it.

    Args:
        model: its axes are numbers, or sums, products and quotients of named axes (``64*batch``, ``tokens + 1``).
        sizes: of the named axes, for one sample: 1 for the batch.

    Raises:
        UsageError: if a product's shape does not follow from them.
    """
    single = copy_model(model)
    for value in (*single.graph.input, *single.graph.output, *single.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param and (size := _axis_size(axis.dim_param, sizes)):
                axis.dim_value = size
    flow = Dataflow(onnx.shape_inference.infer_shapes(single, data_prop=True))
    return sum(
        _node_macs(flow, node)
        for node, kind in zip(flow.nodes, flow.kinds, strict=True)
        if kind is Dependence.DATA and not is_interpolation(node)
    )


_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: lambda left, right: left // right if right else 0,
}


def _axis_size(axis: str, sizes: Mapping[str, int]) -> int | None:
    """The number that an axis such as ``2*tokens + 1`` stands for; None if it is no such sum of named axes."""

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.Name):
            return sizes[node.id]
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        raise ValueError(axis)

    try:
        return value(ast.parse(axis, mode="eval").body)
    except (SyntaxError, ValueError, KeyError):
        return None


def parameters(model: onnx.ModelProto) -> int:
    """Return the number of elements of all stored weight tensors of two or more elements.

    Weights that the exporter merged (batch norm into convolution) are counted as stored. Scalars are left out: they
    are constants of formulas, such as the 3 and 6 of a hard swish. So are matrices of interpolation and its scales.
    Quantised weights count as the floats that they stand for; their scales and zero points do not count.
    """
    floating = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
    rounding = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    codes = {node.input[0] for node in rounding if node.op_type == "DequantizeLinear"}
    constants = {name for node in rounding for name in node.input[1:]}
    constants |= {name for node in model.graph.node if is_interpolation(node) for name in node.input}
    constants |= {name for node in model.graph.node if node.op_type == "Resize" for name in node.input[1:]}
    sizes = (
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if (tensor.data_type in floating and tensor.name not in constants) or tensor.name in codes
    )
    return sum(size for size in sizes if size > 1)


def _node_macs(flow: Dataflow, node: onnx.NodeProto) -> int:
    count = _COUNTED.get(node.op_type)
    return 0 if count is None else count(flow, node)


def _conv_macs(flow: Dataflow, node: onnx.NodeProto) -> int:
    """Weight [out, in / groups, *kernel]."""
    return _size(flow, node.output[0]) * math.prod(_shape(flow, node.input[1])[1:])


def _transposed_conv_macs(flow: Dataflow, node: onnx.NodeProto) -> int:
    """Weight [in, out / groups, *kernel]."""
    return _size(flow, node.input[0]) * math.prod(_shape(flow, node.input[1])[1:])


def _product_macs(flow: Dataflow, node: onnx.NodeProto) -> int:
    summed_axis = -2 if number_attribute(node, "transA", 0) else -1
    return _size(flow, node.output[0]) * _shape(flow, node.input[0])[summed_axis]


def _attention_macs(flow: Dataflow, node: onnx.NodeProto) -> int:
    """Opset 23: queries with keys, then the weights with values."""
    queries, keys = node.input[:2]
    return (_size(flow, queries) + _size(flow, node.output[0])) * _shape(flow, keys)[-2]


def _recurrent_macs(flow: Dataflow, node: onnx.NodeProto) -> int:
    """Data [steps, batch, in] or [batch, steps, in]; two weights, of the data and of the state."""
    return math.prod(_shape(flow, node.input[0])[:2]) * sum(_size(flow, name) for name in node.input[1:3])


def _einsum_macs(flow: Dataflow, node: onnx.NodeProto) -> int:
    """Each further operand multiplies once for every combination of the axes, such as b, c, d of ``bc,cd->bd``."""
    equation = next(attribute.s.decode() for attribute in node.attribute if attribute.name == "equation")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        shape = _shape(flow, name)
        before, dots, after = term.partition("...")
        unnamed = range(len(before) + len(after) - len(shape), 0) if dots else ()  # counted from the last of them
        for label, size in zip((*before, *map(str, unnamed), *after), shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values()) * (len(terms) - 1)


_COUNTED: dict[str, Callable[[Dataflow, onnx.NodeProto], int]] = {
    "Conv": _conv_macs,
    "ConvTranspose": _transposed_conv_macs,
    "MatMul": _product_macs,
    "Gemm": _product_macs,
    "Attention": _attention_macs,
    "Einsum": _einsum_macs,
    **dict.fromkeys(("RNN", "GRU", "LSTM"), _recurrent_macs),
}


def _size(flow: Dataflow, tensor: str) -> int:
    return math.prod(_shape(flow, tensor))


def _shape(flow: Dataflow, tensor: str) -> list[int]:
    if tensor in flow.initializers:
        return list(flow.initializers[tensor].dims)
    axes = flow.axes(tensor)
    sizes = [axis for axis in axes or () if isinstance(axis, int)]
    if axes is None or len(sizes) < len(axes):
        raise UsageError(
            f"The multiply-accumulates cannot be counted: '{tensor}' has the axes {axes} for one sample.",
            allowed="sizes that follow from the named axes of the inputs",
            next_step="choose a backbone whose shapes do not depend on the values of the input",
        )
    return sizes
