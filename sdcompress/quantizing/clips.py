"""Clips for which a range of unsigned codes cannot stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["bounds", "split_clips"]

Stored = Mapping[str, onnx.TensorProto]


def bounds(clip: onnx.NodeProto, stored: Stored) -> tuple[float, float] | None:
    """The lowest and the highest number that a Clip gives; None if one is computed, or if they are swapped.

    Args:
        clip: the node, of opset 11 or later; a bound that it lacks is infinite.
        stored: initialisers by name.
    """
    found = [-np.inf, np.inf]
    for position, name in enumerate(clip.input[1:3]):
        if name and name not in stored:
            return None
        if name:
            found[position] = float(numpy_helper.to_array(stored[name]).item())
    low, high = found
    return (low, high) if low <= high else None


def split_clips(graph: onnx.GraphProto, keep: Collection[str]) -> None:
    """Take the bound beyond zero out of every Clip whose range does not hold zero, in place.

    onnxruntime's quantizer (1.32) drops a Clip and relies on codes that end where the Clip does. But its ranges always
    hold zero, which padding needs: of a Clip to 0.5..3 the codes are 0..3, and the lower bound is lost. So it becomes
    Max(Clip(x, 0, 3), 0.5), and a Clip to -3..-1 becomes Min(Clip(x, -3, 0), -1). Max and Min are never dropped.

    Args:
        graph: float32, of opset 11 or later.
        keep: tensors whose nodes are left as they are.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    known = {value.name: value for value in (*graph.value_info, *graph.output)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        found = bounds(node, stored) if node.op_type == "Clip" and not set(node.output) & set(keep) else None
        if found is None or found[0] <= 0 <= found[1]:
            continue
        position, operator = (1, "Max") if found[0] > 0 else (2, "Min")
        output, bound = node.output[0], node.input[position]
        zero, part = f"{output}/zero", f"{output}/held-by-codes"
        graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), zero))
        node.input[position], node.output[0] = zero, part
        if output in known:  # whose range is measured, because its type is known
            value = graph.value_info.add()
            value.CopyFrom(known[output])
            value.name = part
        nodes.append(helper.make_node(operator, [part, bound], [output], name=f"{node.name}/{operator}"))
    del graph.node[:]
    graph.node.extend(nodes)
