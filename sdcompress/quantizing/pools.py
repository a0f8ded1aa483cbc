"""Average pools as onnxruntime's integer kernel computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["count_inside"]


def count_inside(graph: onnx.GraphProto) -> None:
    """Write average pools so that no place outside the padded input has to be left out of a mean, in place.

    With ``ceil_mode`` the last windows hang over the edge, and what hangs over counts for nothing, not even where
    padding counts (``count_include_pad``). The integer kernel of onnxruntime (1.32) divides by the whole window there,
    but it is right where padding does not count. So the padding becomes a Pad of zeros, which are data to the pool, and
    the pool does not count padding. It is the same pool, and stays in integers; left out of quantisation it would not
    stay in float32, since onnxruntime makes an integer pool of any between two pairs.

    Args:
        graph: float32, with inferred shapes; a padded pool of an input of unknown size stays as it is.
    """
    sizes = {
        value.name: [each.dim_value for each in value.type.tensor_type.shape.dim[2:]]
        for value in (*graph.value_info, *graph.input)
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "AveragePool":
            nodes += _padding(graph, node, sizes.get(node.input[0], [0]))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _padding(graph: onnx.GraphProto, pool: onnx.NodeProto, size: Sequence[int]) -> list[onnx.NodeProto]:
    """The nodes that pad for a pool, which then counts no padding.

    Args:
        graph: that the pool stands in.
        pool: changed in place, unless it is right as it is.
        size: of its input, without batch and channels; 0: not known.
    """
    options = {each.name: helper.get_attribute_value(each) for each in pool.attribute}
    pads = options.get("pads", [0] * 2 * len(options["kernel_shape"]))
    if not (options.get("ceil_mode") and options.get("count_include_pad")) or (any(pads) and not all(size)):
        return []
    _set(pool, count_include_pad=0, pads=[0] * len(pads))
    return [_pad(graph, pool, _needed(size, options, pads))] if any(pads) else []


def _needed(sizes: Sequence[int], options: Mapping[str, Sequence[int]], pads: Sequence[int]) -> list[int]:
    """The padding that windows reach, begins and then ends of all axes.

    A window that would start in the padding at the end is left out, which a pool cannot tell from data.
    """
    ends = []
    for axis, size in enumerate(sizes):
        kernel, stride = options["kernel_shape"][axis], options.get("strides", [1] * len(sizes))[axis]
        begin, end = pads[axis], pads[axis + len(sizes)]
        windows = -(-(size + begin + end - kernel) // stride) + 1
        if (windows - 1) * stride >= size + begin:
            windows -= 1
        ends.append(min(end, max(0, (windows - 1) * stride + kernel - size - begin)))
    return [*pads[: len(sizes)], *ends]


def _pad(graph: onnx.GraphProto, pool: onnx.NodeProto, pads: Sequence[int]) -> onnx.NodeProto:
    """Zeros around what a pool reads, which reads them from now on."""
    name, axes = f"{pool.output[0]}/padded", len(pads) // 2
    whole = np.array([0, 0, *pads[:axes], 0, 0, *pads[axes:]], np.int64)  # batch and channels get none
    graph.initializer.append(numpy_helper.from_array(whole, f"{name}/pads"))
    node = helper.make_node("Pad", [pool.input[0], f"{name}/pads"], [name], name=f"{pool.name}/pad")
    pool.input[0] = name
    return node


def _set(node: onnx.NodeProto, **values: object) -> None:
    kept = [each for each in node.attribute if each.name not in values]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in values.items())])
