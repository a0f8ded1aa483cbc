"""Rewrite average pools so that onnxruntime's integer kernel computes them correctly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sdcompress.onnx_graph.edit import replace_nodes

__all__ = ["extract_padding"]


def extract_padding(graph: onnx.GraphProto) -> None:
    """Move the padding of average pools with ``ceil_mode`` and ``count_include_pad`` into Pad nodes, in place.

    With ``ceil_mode`` the last windows overhang the padded input. The overhang does not count, even if padding does.
    The integer kernel of onnxruntime (1.32) divides by the whole window there, but is right where padding does not
    count. So a Pad node adds the zeros, and the pool counts no padding, which computes the same. Excluding the pool
    from quantisation does not help: onnxruntime turns any pool between two pairs into an integer pool.

    Args:
        graph: float32, with inferred shapes; a padded pool whose input has an unknown size is not changed.
    """
    sizes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim[2:]]
        for value in (*graph.value_info, *graph.input)
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "AveragePool":
            nodes += _extracted(graph, node, sizes.get(node.input[0], [0]))
        nodes.append(node)
    replace_nodes(graph, nodes)


def _extracted(graph: onnx.GraphProto, pool: onnx.NodeProto, size: Sequence[int]) -> list[onnx.NodeProto]:
    """The Pad node for a pool, which then counts no padding; none if the pool needs no change.

    Args:
        graph: of the pool.
        pool: changed in place.
        size: of its input, without batch and channels; 0: unknown.
    """
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in pool.attribute}
    pads = options.get("pads", [0] * 2 * len(options["kernel_shape"]))
    if not (options.get("ceil_mode") and options.get("count_include_pad")) or (any(pads) and not all(size)):
        return []
    _set_attributes(pool, count_include_pad=0, pads=[0] * len(pads))
    return [_pad_node(graph, pool, _reached_padding(size, options, pads))] if any(pads) else []


def _reached_padding(sizes: Sequence[int], options: Mapping[str, Sequence[int]], pads: Sequence[int]) -> list[int]:
    """The padding that windows reach: the begins, then the ends, of all axes.

    A window that would start in the padding at the end does not exist, so the Pad must not create it.
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


def _pad_node(graph: onnx.GraphProto, pool: onnx.NodeProto, pads: Sequence[int]) -> onnx.NodeProto:
    """A Pad of zeros in front of a pool, whose input is changed in place."""
    name, axes = f"{pool.output[0]}/padded", len(pads) // 2
    all_axes = np.array([0, 0, *pads[:axes], 0, 0, *pads[axes:]], np.int64)  # batch and channels get none
    graph.initializer.append(numpy_helper.from_array(all_axes, f"{name}/pads"))
    node = helper.make_node("Pad", [pool.input[0], f"{name}/pads"], [name], name=f"{pool.name}/pad")
    pool.input[0] = name
    return node


def _set_attributes(node: onnx.NodeProto, **values: object) -> None:
    others = [attribute for attribute in node.attribute if attribute.name not in values]
    del node.attribute[:]
    node.attribute.extend([*others, *(helper.make_attribute(name, value) for name, value in values.items())])
