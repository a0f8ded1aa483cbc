"""Measure the largest finite absolute value of tensors inside a graph, without copying the tensors out of it.

Infinities are skipped: they are fills (masked attention, padding before a maximum), which every float type holds.

ONNX Runtime (1.32) keeps all measured tensors of a batch in memory, so give it small batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.onnx_graph.edit import copy_model
from sdcompress.quantizing.precisions._base import Feed

__all__ = ["abs_max", "abs_max_name", "with_abs_max"]

_ZERO = "largest/nothing"


def abs_max(
    model: onnx.ModelProto, names: Collection[str], feeds: Iterable[Feed], *, threads: int = 1
) -> dict[str, float]:
    """The largest finite absolute value of each tensor over all batches.

    Args:
        model: float32; it runs with ONNX Runtime's optimisations.
        names: of tensors in it.
        feeds: its inputs, batch by batch; at least one.
        threads: of ONNX Runtime; 0 leaves the choice to it.
    """
    session = cpu_session(with_abs_max(model, names).SerializeToString(), threads=threads)
    sorted_names = sorted(names)
    outputs = [abs_max_name(name) for name in sorted_names]
    batches = [[float(value) for value in session.run(outputs, feed)] for feed in feeds]
    return dict(zip(sorted_names, map(max, zip(*batches, strict=True)), strict=True))


def abs_max_name(name: str) -> str:
    """The output of ``with_abs_max`` that belongs to a tensor."""
    return f"{name}/largest"


def with_abs_max(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy with the largest finite absolute value of each of these tensors as further outputs, float32 []."""
    extended = copy_model(model)
    extended.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), _ZERO))
    for name in sorted(names):
        absolute, infinite, finite = (f"{name}/{suffix}" for suffix in ("absolute", "infinite", "finite"))
        extended.graph.node.extend(
            [
                helper.make_node("Abs", [name], [absolute]),
                helper.make_node("IsInf", [absolute], [infinite]),
                helper.make_node("Where", [infinite, _ZERO, absolute], [finite]),
                helper.make_node("ReduceMax", [finite], [abs_max_name(name)], keepdims=0),
            ]
        )
        extended.graph.output.append(helper.make_tensor_value_info(abs_max_name(name), TensorProto.FLOAT, []))
    return extended
