"""Write bilinear ``Resize`` nodes in the form that CPUs compute fastest: by stored scales, or as matrix products.

The exporter computes the sizes in each run. onnxruntime (1.32) then leaves its blocked layout of maps, and takes a slow
kernel. There are two faster forms:

- **Stored scales**, if both are whole numbers: onnxruntime keeps the blocked layout between two convolutions.
- **Products**: [h, w] becomes [H, W] by ``R @ x @ C``. Each row of R [H, h] and each column of C [w, W] has at most two
  weights, which add up to one. Of small maps the Kronecker product of R and C makes one product of the flattened
  map: two products are computed for each channel by itself.

The exported graph has products for scales that are no whole numbers, and for outputs of the network, which leave the
blocked layout anyway. 8-bit convolutions have no such layout, so ``uint8`` has products everywhere. Measured on a
convolution, the ``Resize`` and what is behind it, one thread of a Xeon with AVX-512, in ms of processor time:

- [32, 16, 16] to 32 x 32 before a convolution: 0.26 computed sizes, 0.19 stored scales, 0.20 products;
- [32, 16, 16] to 40 x 40 before a convolution: 0.33 computed sizes, 0.25 products;
- [21, 32, 32] to 256 x 256, an output: 3.8 computed sizes, 3.3 stored scales, 2.1 products.

A map with an infinity becomes NaN as a whole by products, where ``Resize`` passes it to its neighbours only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.dataflow import Dataflow
from sdcompress.onnx_graph.edit import drop_unused, replace_nodes

__all__ = ["is_interpolation", "multiply_resizes", "rewrite_resizes"]

_MARK = "bilinear-interpolation/"  # begins the names of the new nodes; no exporter begins a name like that

# Elements of the Kronecker product. On the processor above one product of 16384 is as fast as two, and one of 65536
# takes five times as long.
_LARGEST_KRONECKER = 8192

# Multiply-accumulates of two products for each value of the result. On the processor above a Resize takes as long as
# 120 to 150; the limit leaves room for processors with shorter vectors.
_MOST_MACS = 64

_MODE = "coordinate_transformation_mode"
_MODES = {"half_pixel", "pytorch_half_pixel", "align_corners"}
_SETTINGS = {"mode": "linear", "antialias": 0, "exclude_outside": 0, "keep_aspect_ratio_policy": "stretch"}
_DEFAULTS = _SETTINGS | {"mode": "nearest", _MODE: "half_pixel"}

Array = npt.NDArray[np.float64]
Axes = Sequence[int | str]


def rewrite_resizes(model: onnx.ModelProto) -> None:
    """Store the scales of each bilinear ``Resize``, or replace it by products, in place.

    All others stay: other modes, with antialiasing, of other axes, of a size that varies. So does one of large maps
    whose scales are no whole numbers.

    Args:
        model: with the axes of its tensors.
    """
    outputs = {value.name for value in model.graph.output}
    _rewrite(model, lambda resize: not resize.whole or resize.node.output[0] in outputs)


def multiply_resizes(model: onnx.ModelProto) -> None:
    """Replace each bilinear ``Resize`` by products, in place; that of large maps stays.

    Args:
        model: with the axes of its tensors.
    """
    _rewrite(model, lambda _: True)


def is_interpolation(node: onnx.NodeProto) -> bool:
    """Return whether a node is one of those that a ``Resize`` was replaced by.

    Its matrix is no weight: it is not counted, and stays in float32.
    """
    return bool(node.name.startswith(_MARK))


@dataclass(frozen=True)
class _Resize:
    """A linear ``Resize`` of [B, C, h, w] to [B, C, H, W].

    Attributes:
        node: itself.
        leading: B and C.
        before: h and w.
        after: H and W.
        scales: of the rows and the columns.
        mode: which coordinates the new rows and columns have.
    """

    node: onnx.NodeProto
    leading: Axes
    before: tuple[int, int]
    after: tuple[int, int]
    scales: tuple[float, float]
    mode: str

    @property
    def whole(self) -> bool:
        """Whether the scales are whole numbers."""
        return all(scale.is_integer() for scale in self.scales)

    @property
    def matrices(self) -> tuple[Array, Array]:
        """R and C, of the rows [H, h] and of the columns [w, W]."""
        rows, columns = (_matrix(*axis, self.mode) for axis in zip(self.before, self.after, self.scales, strict=True))
        return rows, columns.T


@dataclass(frozen=True)
class _Replacement:
    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto]
    values: list[onnx.ValueInfoProto]


def _rewrite(model: onnx.ModelProto, by_products: Callable[[_Resize], bool]) -> None:
    flow, graph = Dataflow(model), model.graph
    nodes: list[onnx.NodeProto] = []
    for node in flow.nodes:
        resize = _resize(flow, node)
        replacement = None
        if resize is not None:
            replacement = (_products(resize) if by_products(resize) else None) or _stored_scales(resize)
        if replacement is None:
            nodes.append(node)
            continue
        nodes += replacement.nodes
        graph.initializer.extend(replacement.constants)
        graph.value_info.extend(replacement.values)
    if len(graph.initializer) > len(flow.initializers):  # each replacement stores something
        replace_nodes(graph, nodes)
        drop_unused(graph)


def _resize(flow: Dataflow, node: onnx.NodeProto) -> _Resize | None:
    """What a node resizes; None if it is not linear, or not along two axes of known sizes."""
    settings = _DEFAULTS | {attribute.name: _setting(attribute) for attribute in node.attribute}
    supported = settings[_MODE] in _MODES and all(settings[name] == value for name, value in _SETTINGS.items())
    if node.op_type != "Resize" or not supported or "axes" in settings:
        return None
    axes, value = flow.axes(node.input[0]), flow.values.get(node.input[0])
    if axes is None or len(axes) != 4 or value is None or value.type.tensor_type.elem_type != TensorProto.FLOAT:
        return None
    *leading, rows, columns = axes
    if not isinstance(rows, int) or not isinstance(columns, int) or 0 in axes:  # 0: unknown
        return None
    resized = _resized_to(flow, node, leading, (rows, columns))
    return None if resized is None else _Resize(node, leading, (rows, columns), *resized, str(settings[_MODE]))


def _resized_to(
    flow: Dataflow, node: onnx.NodeProto, leading: Axes, before: tuple[int, int]
) -> tuple[tuple[int, int], tuple[float, float]] | None:
    """H and W, and the scales; None if they vary, or if other axes are resized too.

    Given scales differ from the ratio of the sizes where that was rounded: 2.3 times 5 rows are 11 rows. They are
    multiplied in float32, as in runtimes: 3 rows times 5 / 3 are 5 rows, although float32 has less than 5 / 3.
    """
    if len(node.input) == 3:
        scales = _stored_values(flow, node.input[2])
        if scales is None or scales.shape != (4,) or (scales[:2] != 1).any():
            return None
        by_size = scales[2:].astype(np.float32)
        high, wide = map(int, np.array(before, np.float32) * by_size)
        return (high, wide), (float(by_size[0]), float(by_size[1]))
    axes = flow.axes(node.output[0])
    if axes is None or len(axes) != 4 or axes[:2] != leading:
        return None
    _, _, rows, columns = axes
    if not isinstance(rows, int) or not isinstance(columns, int) or 0 in axes:
        return None
    return (rows, columns), (rows / before[0], columns / before[1])


def _setting(attribute: onnx.AttributeProto) -> object:
    value = helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _stored_values(flow: Dataflow, name: str) -> np.ndarray | None:
    if name in flow.initializers:
        return np.asarray(numpy_helper.to_array(flow.initializers[name]))
    producer = flow.nodes[flow.producer[name]] if name in flow.producer else None
    if producer is None or producer.op_type != "Constant" or producer.attribute[0].name != "value":
        return None
    return np.asarray(numpy_helper.to_array(producer.attribute[0].t))


def _stored_scales(resize: _Resize) -> _Replacement | None:
    """The same node with its scales; None if they are stored already, or rounded numbers could give other sizes."""
    if len(resize.node.input) == 3 or not resize.whole:
        return None
    node = onnx.NodeProto()
    node.CopyFrom(resize.node)
    name = f"{node.output[0]}/scales"
    node.input[:] = [node.input[0], "", name]
    return _Replacement([node], [numpy_helper.from_array(np.array([1, 1, *resize.scales], np.float32), name)], [])


def _products(resize: _Resize) -> _Replacement | None:
    """One or two products; None if ``Resize`` is faster."""
    (rows, columns), (high, wide) = resize.before, resize.after
    if rows * columns * high * wide <= _LARGEST_KRONECKER:
        return _one_product(resize)
    columns_first = rows * columns / high + rows
    rows_first = rows * columns / wide + columns
    if min(columns_first, rows_first) > _MOST_MACS:
        return None
    return _two_products(resize, columns_first=columns_first <= rows_first)


def _one_product(resize: _Resize) -> _Replacement:
    source, result = resize.node.input[0], resize.node.output[0]
    flat, product, matrix, flattened, shape = (
        f"{_MARK}{result}/{part}" for part in ("flat", "product", "matrix", "flattened", "shape")
    )
    rows, columns = resize.matrices
    sizes = math.prod(resize.before), math.prod(resize.after)
    return _Replacement(
        [
            helper.make_node("Reshape", [source, flattened], [flat], name=flat),
            helper.make_node("MatMul", [flat, matrix], [product], name=product),
            helper.make_node("Reshape", [product, shape], [result], name=f"{_MARK}{result}"),
        ],
        [
            _stored_matrix(matrix, np.kron(rows.T, columns)),
            numpy_helper.from_array(np.array([0, 0, sizes[0]], np.int64), flattened),  # 0: as in the input
            numpy_helper.from_array(np.array([0, 0, *resize.after], np.int64), shape),
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [*resize.leading, size])
            for name, size in zip((flat, product), sizes, strict=True)
        ],
    )


def _two_products(resize: _Resize, *, columns_first: bool) -> _Replacement:
    source, result = resize.node.input[0], resize.node.output[0]
    between, of_rows, of_columns = (f"{_MARK}{result}/{part}" for part in ("between", "rows", "columns"))
    (rows, columns), (high, wide) = resize.before, resize.after
    if columns_first:
        operands, sizes = [[source, of_columns], [of_rows, between]], (rows, wide)
    else:
        operands, sizes = [[of_rows, source], [between, of_columns]], (high, columns)
    return _Replacement(
        [
            helper.make_node("MatMul", inputs, [output], name=name)
            for inputs, output, name in zip(operands, (between, result), (between, f"{_MARK}{result}"), strict=True)
        ],
        [_stored_matrix(name, matrix) for name, matrix in zip((of_rows, of_columns), resize.matrices, strict=True)],
        [helper.make_tensor_value_info(between, TensorProto.FLOAT, [*resize.leading, *sizes])],
    )


def _stored_matrix(name: str, matrix: Array) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(matrix, np.float32), name)


def _matrix(size: int, resized: int, scale: float, mode: str) -> Array:
    """The weights [resized, size] of an axis, as ONNX defines ``Resize``."""
    index = np.arange(resized, dtype=np.float64)
    if mode == "align_corners":
        position = index * (size - 1) / max(resized - 1, 1)
    elif mode == "pytorch_half_pixel" and resized == 1:
        position = np.zeros(1)
    else:
        position = (index + 0.5) / scale - 0.5
    position = position.clip(0, size - 1)
    lower = np.floor(position).astype(np.int64)
    matrix, row = np.zeros((resized, size)), np.arange(resized)
    np.add.at(matrix, (row, lower), 1 - (position - lower))
    np.add.at(matrix, (row, np.minimum(lower + 1, size - 1)), position - lower)
    return matrix
