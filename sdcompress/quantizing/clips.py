"""Split Clip nodes whose range a range of unsigned codes cannot represent."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sdcompress.onnx_graph.edit import replace_nodes

__all__ = ["clip_bounds", "split_clips"]

Initializers = Mapping[str, onnx.TensorProto]


def clip_bounds(clip: onnx.NodeProto, stored: Initializers) -> tuple[float, float] | None:
    """The lower and upper bound of a Clip; None if one is computed, or if lower > upper.

    Args:
        clip: the node, of opset 11 or later; a missing bound is infinite.
        stored: initialisers by name.
    """
    limits = [-np.inf, np.inf]
    for position, name in enumerate(clip.input[1:3]):
        if name and name not in stored:
            return None
        if name:
            limits[position] = float(numpy_helper.to_array(stored[name]).item())
    low, high = limits
    return (low, high) if low <= high else None


def split_clips(graph: onnx.GraphProto, keep: Collection[str]) -> None:
    """Move the bound beyond zero out of every Clip whose range excludes zero, in place.

    onnxruntime's quantizer (1.32) drops a Clip and relies on codes with the Clip's range. But its ranges always include
    zero, for padding: a Clip to 0.5..3 gets the codes 0..3 and loses its lower bound. So it becomes
    Max(Clip(x, 0, 3), 0.5), and a Clip to -3..-1 becomes Min(Clip(x, -3, 0), -1). Max and Min are never dropped.

    Args:
        graph: float32, of opset 11 or later.
        keep: tensors whose nodes are left as they are.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    values = {value.name: value for value in (*graph.value_info, *graph.output)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        limits = clip_bounds(node, stored) if node.op_type == "Clip" and not set(node.output) & set(keep) else None
        if limits is None or limits[0] <= 0 <= limits[1]:
            continue
        position, operator = (1, "Max") if limits[0] > 0 else (2, "Min")
        output, bound = node.output[0], node.input[position]
        zero, clipped = f"{output}/zero", f"{output}/held-by-codes"
        graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), zero))
        node.input[position], node.output[0] = zero, clipped
        if output in values:  # whose range is measured, because its type is known
            value = graph.value_info.add()
            value.CopyFrom(values[output])
            value.name = clipped
        nodes.append(helper.make_node(operator, [clipped, bound], [output], name=f"{node.name}/{operator}"))
    replace_nodes(graph, nodes)
