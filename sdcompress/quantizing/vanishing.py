"""Find constants that are zero in float16, such as the 1e-8 of ``x / (deviation + 1e-8)``, and their dependants."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from sdcompress.quantizing.precisions._base import PRODUCTS

__all__ = ["vanishing_paths"]

# Operators that pass a small number on, and operators that end its path: their results are of ordinary size
_PASSES = frozenset(
    {
        *("Add", "Sub", "Mul", "Sqrt", "Abs", "Neg", "Max", "Min", "Clip", "Where", "Identity"),
        *("Reshape", "Expand", "Squeeze", "Unsqueeze", "Transpose"),
    }
)
_STOPS = frozenset({"Div", "Reciprocal", "Log", "Pow"})


def vanishing_paths(model: onnx.ModelProto) -> frozenset[str]:
    """The tensors that must stay in float32, so that no stored constant becomes zero in float16.

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
