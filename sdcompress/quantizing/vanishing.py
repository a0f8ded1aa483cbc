"""Constants that float16 takes for zero, such as the 1e-8 of ``x / (deviation + 1e-8)``, and what hangs on them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from sdcompress.quantizing.precisions._base import PRODUCTS

__all__ = ["guarded"]

# What a small number goes through on its way to where it matters, and what ends it: the result is of ordinary size
_PASSES = frozenset(
    {
        *("Add", "Sub", "Mul", "Sqrt", "Abs", "Neg", "Max", "Min", "Clip", "Where", "Identity"),
        *("Reshape", "Expand", "Squeeze", "Unsqueeze", "Transpose"),
    }
)
_ENDS = frozenset({"Div", "Reciprocal", "Log", "Pow"})


def guarded(model: onnx.ModelProto) -> frozenset[str]:
    """The tensors to be computed in float32, so that no stored constant becomes zero in float16.

    From the node that reads such a constant, on to the division that it guards.

    Args:
        model: float32.
    """
    vanishing = {tensor.name for tensor in model.graph.initializer if _vanishes(tensor)}
    small: set[str] = set()
    found: set[str] = set()
    for node in model.graph.node:  # in the order of computation
        if node.op_type in PRODUCTS or not {*node.input} & (vanishing | small):
            continue
        starts = bool(vanishing & {*node.input})
        if starts or node.op_type in _PASSES | _ENDS:
            found.update(node.output)
        if node.op_type not in _ENDS and (starts or node.op_type in _PASSES):
            small.update(node.output)
    return frozenset(found)


def _vanishes(tensor: onnx.TensorProto) -> bool:
    """Whether every number of a stored tensor that is not zero becomes zero."""
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return False
    array = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore", under="ignore"):
        return bool(array.any() and not array.astype(np.float16).any())
