"""How large tensors inside a graph become: no tensor leaves it, only its largest absolute value.

While it runs all of them are held, whatever the order of the nodes (onnxruntime 1.32): give it small batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx
import onnxruntime
from onnx import TensorProto, helper

from sdcompress.quantizing.precisions._base import Feed

__all__ = ["largest", "largest_name", "with_largest"]


def largest(model: onnx.ModelProto, names: Collection[str], feeds: Iterable[Feed]) -> dict[str, float]:
    """The largest absolute value of each tensor over all batches.

    Args:
        model: float32; it is run as ONNX Runtime optimises it, on all cores.
        names: of tensors in it.
        feeds: its inputs, batch by batch; at least one.
    """
    options = onnxruntime.SessionOptions()
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
    """A copy that also gives the largest absolute value of each of these tensors, float32 []."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for name in sorted(names):
        made.graph.node.append(helper.make_node("Abs", [name], [f"{name}/absolute"]))
        made.graph.node.append(helper.make_node("ReduceMax", [f"{name}/absolute"], [largest_name(name)], keepdims=0))
        made.graph.output.append(helper.make_tensor_value_info(largest_name(name), TensorProto.FLOAT, []))
    return made
