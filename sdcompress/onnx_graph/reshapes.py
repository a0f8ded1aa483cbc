"""Store the shapes of Reshape nodes that follow from the axes of their inputs, instead of computing them in each run.

The exporter computes [batch, tokens, heads, size] by Shape and Concat nodes, and each segment would compute it again.
ONNX has a code for "as in the input" (0) and one for "what is left" (-1), with which such a shape is a constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from sdcompress.onnx_graph.dataflow import Dataflow, Dependence
from sdcompress.onnx_graph.edit import drop_unused

__all__ = ["store_reshapes"]

Axes = Sequence[int | str]


def store_reshapes(model: onnx.ModelProto) -> None:
    """Give a stored shape to each Reshape whose computed one is known, in place.

    Args:
        model: with the axes of its tensors; nodes that only these shapes needed are removed.
    """
    flow = Dataflow(model)
    stored: dict[tuple[int, ...], str] = {}
    for node in flow.nodes:
        if node.op_type != "Reshape" or not _is_computed(flow, node.input[1]):
            continue
        shape = _shape(flow.axes(node.input[0]), flow.axes(node.output[0]))
        if shape is None:
            continue
        if shape not in stored:
            stored[shape] = f"shape/{'x'.join(map(str, shape))}"
            model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), stored[shape]))
        node.input[1] = stored[shape]
        node.ClearField("attribute")  # allowzero, by which 0 would be a size
    if stored:
        drop_unused(model.graph)


def _is_computed(flow: Dataflow, shape: str) -> bool:
    return shape in flow.producer and flow.kinds[flow.producer[shape]] is Dependence.SHAPE


def _shape(before: Axes | None, after: Axes | None) -> tuple[int, ...] | None:
    """The shape as ONNX codes it; None if it does not follow from the axes.

    Args:
        before: of the input, an axis that varies by its name.
        after: of the output.
    """
    if before is None or after is None or 0 in (*before, *after):  # 0: unknown, see Dataflow.axes
        return None
    shape = [
        axis if isinstance(axis, int) else 0 if before[position : position + 1] == [axis] else -1
        for position, axis in enumerate(after)
    ]
    return tuple(shape) if shape.count(-1) <= 1 else None
