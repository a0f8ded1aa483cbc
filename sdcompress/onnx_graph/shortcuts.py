"""Leave out of a merged graph what only separate segments need: signals that no score reads, and floats between codes.

What the graph computes stays the same, to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeGuard, TypeVar

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sdcompress.artifact.codes import Quantisation, keeps_codes
from sdcompress.onnx_graph.dataflow import number_attribute
from sdcompress.onnx_graph.edit import graphs_within, replace_nodes

__all__ = ["pass_codes", "read_parts"]

_Named = TypeVar("_Named")


def read_parts(model: onnx.ModelProto) -> None:
    """Let every Gather of one column of a Concat read the part that holds the column, in place.

    A part that no node reads any more can be dropped: the entropy, where a policy reads the two largest probabilities.

    Args:
        model: a tensor whose name another tensor has too, in another branch, is left as it is.
    """
    producers, stored, widths = _producers(model), _stored(model), _widths(model)
    for graph in graphs_within(model.graph):
        for node in graph.node:
            concat = producers.get(node.input[0]) if node.op_type == "Gather" else None
            if concat is None or concat.op_type != "Concat" or node.input[1] not in stored or _axis(node) != 1:
                continue
            column = numpy_helper.to_array(stored[node.input[1]])
            part = _part(concat, int(column), widths) if column.shape == () and _axis(concat) == 1 else None
            if part is not None:
                at = numpy_helper.from_array(np.array(part[1], column.dtype), f"{node.output[0]}/column")
                graph.initializer.append(at)
                node.input[:] = [part[0], at.name]


def pass_codes(model: onnx.ModelProto) -> None:
    """Let codes pass where a DequantizeLinear restores floats only for a QuantizeLinear to make them again, in place.

    Segments pass floats on. onnxruntime removes such pairs within a graph, but not between a graph and a branch. Where
    a Gather lies between them, it gathers the codes.

    Args:
        model: as for ``read_parts``.
    """
    producers, stored = _producers(model), _stored(model)
    renamed: dict[str, str] = {}
    for graph in graphs_within(model.graph):
        kept = []
        for node in graph.node:
            source = producers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
            gather = source if source is not None and source.op_type == "Gather" and _axis(source) == 0 else None
            restored = producers.get(gather.input[0]) if gather is not None else source
            if not _keeps_codes(restored, node, stored):
                kept.append(node)
                continue
            codes = renamed.get(restored.input[0], restored.input[0])  # which may have passed a segment before
            if gather is None:
                renamed[node.output[0]] = codes
            else:
                kept.append(helper.make_node("Gather", [codes, gather.input[1]], list(node.output), name=node.name))
        replace_nodes(graph, kept)
    for graph in graphs_within(model.graph):
        for node in graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]


def _keeps_codes(
    restored: onnx.NodeProto | None, made: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]
) -> TypeGuard[onnx.NodeProto]:
    """Whether ``made`` gives the very codes that ``restored`` reads; each has one scale and one zero point."""
    if restored is None or restored.op_type != "DequantizeLinear":
        return False
    pair = []
    for node in (restored, made):
        if len(node.input) != 3 or not stored.keys() >= set(node.input[1:]):
            return False
        pair.append(Quantisation(*(stored[name].SerializeToString() for name in node.input[1:])))
    return keeps_codes(*pair)


def _part(concat: onnx.NodeProto, column: int, widths: Mapping[str, int]) -> tuple[str, int] | None:
    """The part of a Concat that holds a column, 0 ..., and the column's place in it; None if a width is unknown."""
    for name in concat.input:
        width = widths.get(name, 0)
        if width == 0 or column < 0:
            return None
        if column < width:
            return name, column
        column -= width
    return None


def _widths(model: onnx.ModelProto) -> dict[str, int]:
    """The second axis of all tensors that have two; 0 if it is unknown."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    axes = {
        value.name: value.type.tensor_type.shape.dim
        for graph in graphs_within(inferred.graph)
        for value in graph.value_info
    }
    return {name: dims[1].dim_value for name, dims in axes.items() if len(dims) == 2}


def _producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    nodes = [(name, node) for graph in graphs_within(model.graph) for node in graph.node for name in node.output]
    return _of_one_name(nodes)


def _stored(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return _of_one_name((tensor.name, tensor) for graph in graphs_within(model.graph) for tensor in graph.initializer)


def _of_one_name(named: Iterable[tuple[str, _Named]]) -> dict[str, _Named]:
    """Those whose name nothing else has: branches of an If may share names."""
    pairs = list(named)
    counts = Counter(name for name, _ in pairs)
    return {name: one for name, one in pairs if counts[name] == 1}


def _axis(node: onnx.NodeProto) -> float:
    return number_attribute(node, "axis", 0)
