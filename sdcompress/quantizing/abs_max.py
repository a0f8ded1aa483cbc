"""How large tensors inside a graph become: no tensor leaves it, only its largest finite absolute value.

An infinity is no size: as a fill (masked attention, padding before a maximum) every float holds it.

While it runs all of them are held, whatever the order of the nodes (onnxruntime 1.32): give it small batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from sdcompress.quantizing.precisions._base import Feed

__all__ = ["largest", "largest_name", "with_largest"]

_NOTHING = "largest/nothing"


def largest(
    model: onnx.ModelProto, names: Collection[str], feeds: Iterable[Feed], *, threads: int = 1
) -> dict[str, float]:
    """The largest finite absolute value of each tensor over all batches.

    Args:
        model: float32; it is run as ONNX Runtime optimises it.
        names: of tensors in it.
        feeds: its inputs, batch by batch; at least one.
        threads: of ONNX Runtime; 0 leaves the choice to it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what fails is raised
    graph = with_largest(model, names).SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    wanted = sorted(names)
    outputs = [largest_name(name) for name in wanted]
    batches = [[float(value) for value in session.run(outputs, feed)] for feed in feeds]
    return dict(zip(wanted, map(max, zip(*batches, strict=True)), strict=True))


def largest_name(name: str) -> str:
    """The output of ``with_largest`` that belongs to a tensor."""
    return f"{name}/largest"


def with_largest(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy that also gives the largest finite absolute value of each of these tensors, float32 []."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), _NOTHING))
    for name in sorted(names):
        absolute, infinite, finite = (f"{name}/{what}" for what in ("absolute", "infinite", "finite"))
        made.graph.node.extend(
            [
                helper.make_node("Abs", [name], [absolute]),
                helper.make_node("IsInf", [absolute], [infinite]),
                helper.make_node("Where", [infinite, _NOTHING, absolute], [finite]),
                helper.make_node("ReduceMax", [finite], [largest_name(name)], keepdims=0),
            ]
        )
        made.graph.output.append(helper.make_tensor_value_info(largest_name(name), TensorProto.FLOAT, []))
    return made
