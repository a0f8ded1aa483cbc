"""Protect small summands, such as in ``x / (deviation + 1e-8)``, from the exporter's optimiser.

onnxscript (0.7) treats a scalar within 1e-8 of zero as zero and removes the sum. Then a blank image divides by zero. It
compares only scalars without axes, so a small scalar gets an axis of one element.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["keep_epsilons"]

_SMALL = 1e-7  # with room for another tolerance
_SCALAR = 0


def keep_epsilons(model: Any) -> None:
    """Give every small summand an axis, in place; results keep their shapes.

    Args:
        model: onnx_ir.Model, before it is optimised.
    """
    for graph in (model.graph, *model.functions.values()):
        for node in list(graph):
            if node.domain or node.op_type not in {"Add", "Sub"}:
                continue
            for position, value in enumerate(node.inputs):
                epsilon, summand = _small(value), node.inputs[1 - position]
                if epsilon is None or summand.shape is None or len(summand.shape) == _SCALAR:
                    continue
                constant = ir.node("Constant", [], attributes={"value": ir.tensor(epsilon.reshape(1))})
                graph.insert_before(node, constant)
                node.replace_input_with(position, constant.outputs[0])


def _small(value: Any) -> np.ndarray | None:
    """The scalar that a value holds, if it is small and not zero; else None."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or len(tensor.shape) != _SCALAR or not tensor.dtype.is_floating_point():
        return None
    array = tensor.numpy()
    return array if 0 < abs(float(array)) <= _SMALL else None
