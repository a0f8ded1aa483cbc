"""Rewrite clips, average pools, means and biases so that ONNX Runtime computes them in integers, and rightly."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.dataflow import number_attribute
from sdcompress.onnx_graph.edit import replace_nodes
from sdcompress.quantizing.precisions._base import PRODUCTS

__all__ = ["clip_bounds", "extract_padding", "pool_means", "quantize_gemm_biases", "split_clips"]

_RESHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})

Initializers = Mapping[str, onnx.TensorProto]


def clip_bounds(clip: onnx.NodeProto, stored: Initializers) -> tuple[float, float] | None:
    """Return the lower and upper bound of a Clip; None if one is computed, or if lower > upper.

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
        if stored[bound].data_type != TensorProto.FLOAT:  # counts of tokens, which have no codes
            continue
        zero, clipped = f"{output}/zero", f"{output}/held-by-codes"
        graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), zero))
        node.input[position], node.output[0] = zero, clipped
        if output in values:  # whose range is measured, because its type is known
            value = graph.value_info.add()
            value.CopyFrom(values[output])
            value.name = clipped
        nodes.append(helper.make_node(operator, [clipped, bound], [output], name=f"{node.name}/{operator}"))
    replace_nodes(graph, nodes)


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
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "AveragePool":
            nodes += _extracted(graph, node, sizes.get(node.input[0], [0]))
        nodes.append(node)
    replace_nodes(graph, nodes)


def pool_means(graph: onnx.GraphProto, keep: Collection[str], quantised: Collection[str]) -> None:
    """Make a GlobalAveragePool of the means over height and width between quantised nodes, in place.

    onnxruntime (1.32) has an integer kernel for the pool, and none for ReduceMean: it would restore the floats of the
    whole map first, and the order of their axes. Where a node in float32 reads the mean, as in a normalisation, it
    stays, so that it is not rounded.

    Args:
        graph: float32, with inferred shapes.
        keep: tensors whose nodes are left as they are.
        quantised: names of the nodes that are quantised.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    codes = {name for node in graph.node if node.name in quantised for name in node.output}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if (
            node.op_type == "ReduceMean"
            and node.input[0] in codes
            and ranks.get(node.input[0]) == 4
            and sorted(axis % 4 for axis in _reduced_axes(node, stored)) == [2, 3]
            and not set(node.output) & set(keep)
            and _only_multiplied(graph, node.output[0], quantised)
        ):
            nodes += _pooled(graph, node)
        else:
            nodes.append(node)
    replace_nodes(graph, nodes)


def _only_multiplied(graph: onnx.GraphProto, tensor: str, quantised: Collection[str]) -> bool:
    """Whether quantised products alone read a tensor, as it is or in another shape."""
    readers = [node for node in graph.node if tensor in node.input]
    is_output = tensor in {value.name for value in graph.output}
    return not is_output and all(
        _only_multiplied(graph, reader.output[0], quantised)
        if reader.op_type in _RESHAPING
        else reader.op_type in PRODUCTS and reader.name in quantised
        for reader in readers
    )


def quantize_gemm_biases(graph: onnx.GraphProto) -> None:
    """Give every Gemm of quantised inputs and weights an integer bias, in place.

    onnxruntime (1.32) computes such a Gemm in integers only if its bias is one too, where its output stays float32.
    Otherwise it restores the floats of all weights in every call. An integer counts units of both scales. A bias of
    more than 2**30 units stays float32: with the products it could exceed an integer of 32 bits. So does that of a
    Gemm with factors: onnxruntime 1.24 multiplies an integer bias by ``alpha``.

    Args:
        graph: with its pairs; the nodes stay in topological order.
    """
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scales = {node.output[0]: stored.get(node.input[1]) for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Gemm" and len(node.input) == 3 and node.input[2] in stored:
            data, weight = (scales.get(name) for name in node.input[:2])
            if data is not None and weight is not None and data.ndim == 0:
                nodes += _bias_in_units(graph, node, stored[node.input[2]], data * weight)
        nodes.append(node)
    replace_nodes(graph, nodes)


def _bias_in_units(
    graph: onnx.GraphProto, gemm: onnx.NodeProto, bias: npt.NDArray[np.float32], units: npt.NDArray[np.float32]
) -> list[onnx.NodeProto]:
    """The node that restores a bias from integers, which the Gemm then reads; none if it is left as it is."""
    with np.errstate(all="ignore"):  # a unit may be 0
        counts = np.rint(bias / units)
    has_factors = any(number_attribute(gemm, factor, 1.0) != 1 for factor in ("alpha", "beta"))
    if has_factors or bias.shape != units.shape or not (np.abs(counts) <= 2**30).all():  # which a NaN is not either
        return []
    name = f"{gemm.output[0]}/bias-in-units"
    tensors = {f"{name}/codes": counts.astype(np.int32), f"{name}/scale": units}
    graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in tensors.items())
    gemm.input[2] = name
    return [helper.make_node("DequantizeLinear", list(tensors), [name], name=name, axis=0)]


def _reduced_axes(node: onnx.NodeProto, stored: Initializers) -> list[int]:
    """The axes of a reduction; none if they are computed, or if it reduces all."""
    if len(node.input) > 1:  # from opset 18 on
        return numpy_helper.to_array(stored[node.input[1]]).tolist() if node.input[1] in stored else []
    axes: list[int] = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "axes"), [])
    return axes


def _pooled(graph: onnx.GraphProto, mean: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes in place of a mean over height and width; a Flatten drops the axes where the mean does."""
    keeps_axes = number_attribute(mean, "keepdims", 1)
    pooled = mean.output[0] if keeps_axes else f"{mean.output[0]}/pooled"
    pool = helper.make_node("GlobalAveragePool", [mean.input[0]], [pooled], name=mean.name)
    if keeps_axes:
        return [pool]
    # whose range is measured, because its type is known
    graph.value_info.append(helper.make_tensor_value_info(pooled, TensorProto.FLOAT, None))
    return [pool, helper.make_node("Flatten", [pooled], list(mean.output), name=f"{mean.name}/flatten")]


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
