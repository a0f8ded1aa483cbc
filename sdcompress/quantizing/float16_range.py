"""Keep constants within the range of float16: clip large fills, and find constants that would become zero."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import numpy_helper

from sdcompress.onnx_graph.edit import copy_model, drop_unused_initializers
from sdcompress.quantizing.precisions._base import PRODUCTS

__all__ = ["LARGEST", "clip_fills", "vanishing_paths"]

LARGEST = float(np.finfo(np.float16).max)

# Operator -> the inputs that may be fills, and their limit. A sum needs room for the other summand.
_FILL_INPUTS = {
    "Where": ((1, 2), LARGEST),
    "Pad": ((2,), LARGEST),
    "Clip": ((1, 2), LARGEST),
    "Max": (None, LARGEST),
    "Min": (None, LARGEST),
    "Add": (None, LARGEST / 2),
    "Sub": ((1,), LARGEST / 2),
}


def clip_fills(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Return a float32 copy in which stored fills beyond float16's range are its largest numbers; infinities stay.

    Only constants that nodes select, compare with or add are fills. A weight of that size stays, and is refused later.

    Args:
        model: float32.
        keep: tensors whose nodes will compute in float32, which holds their fills.
    """
    clipped = copy_model(model)
    stored = {tensor.name: tensor for tensor in clipped.graph.initializer}
    # a selected mask is added to scores, perhaps in a later segment
    added = {value.name for value in clipped.graph.output}
    added |= {name for node in clipped.graph.node if node.op_type in {"Add", "Sub"} for name in node.input}
    copies: dict[str, np.ndarray] = {}
    for node in clipped.graph.node:
        if node.op_type not in _FILL_INPUTS or set(node.output) & set(keep):
            continue
        positions, largest = _FILL_INPUTS[node.op_type]
        if node.op_type == "Where" and added & set(node.output):
            largest = LARGEST / 2
        for position in range(len(node.input)) if positions is None else positions:
            name = node.input[position] if position < len(node.input) else ""
            if name not in stored or stored[name].data_type != onnx.TensorProto.FLOAT:
                continue
            value = numpy_helper.to_array(stored[name])
            if (np.isfinite(value) & (np.abs(value) > LARGEST)).any():
                node.input[position] = f"{name}/within-{largest:.0f}"
                within = np.where(np.isfinite(value), value.clip(-largest, largest), value)
                copies[node.input[position]] = within.astype(np.float32)
    clipped.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in copies.items())
    drop_unused_initializers(clipped.graph)
    return clipped


# Operators that pass a small number on, and operators that end its path: their results are of ordinary size
_PASSES = frozenset(
    {
        *("Add", "Sub", "Mul", "Sqrt", "Abs", "Neg", "Max", "Min", "Clip", "Where", "Identity"),
        *("Reshape", "Expand", "Squeeze", "Unsqueeze", "Transpose"),
    }
)
_STOPS = frozenset({"Div", "Reciprocal", "Log", "Pow"})


def vanishing_paths(model: onnx.ModelProto) -> frozenset[str]:
    """Return the tensors that must stay in float32, so that no stored constant becomes zero in float16.

    A path begins at a node that reads such a constant, and ends at the division that the constant guards.

    Args:
        model: float32.
    """
    vanishing = {tensor.name for tensor in model.graph.initializer if _vanishes(tensor)}
    reached: set[str] = set()
    tensors: set[str] = set()
    for node in model.graph.node:  # in the order of computation
        if node.op_type in PRODUCTS or not {*node.input} & (vanishing | reached):
            continue
        starts = bool(vanishing & {*node.input})
        if starts or node.op_type in _PASSES | _STOPS:
            tensors.update(node.output)
        if node.op_type not in _STOPS and (starts or node.op_type in _PASSES):
            reached.update(node.output)
    return frozenset(tensors)


def _vanishes(tensor: onnx.TensorProto) -> bool:
    """Whether all nonzero numbers of a stored tensor become zero in float16."""
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return False
    array = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore", under="ignore"):
        return bool(array.any() and not array.astype(np.float16).any())
