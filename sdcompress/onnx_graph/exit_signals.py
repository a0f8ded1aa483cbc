"""Add the nodes to a graph that compute an exit's signals, a few numbers for each image instead of all logits.

On a GPU the host then reads back a few bytes of each exit. On a CPU it is as fast as computing the largest probability
outside the graph. The layout 'graph' needs them. Thresholds stay in the manifest.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from sdcompress.onnx_graph.edit import copy_model
from sdcompress.schema.manifest import ExitSignals
from sdcompress.tasks import Task

__all__ = ["add_signals"]


def add_signals(
    model: onnx.ModelProto, exit_: str, outputs: str, task: Task, *, batch: str
) -> tuple[onnx.ModelProto, ExitSignals]:
    """Return a copy of a segment with an exit's signals as further outputs; see ``ExitSignals``.

    Args:
        model: the segment.
        exit_: the exit's name.
        outputs: name of its outputs, [batch, ...].
        task: what the outputs mean.
        batch: name of the batch axis.
    """
    extended = copy_model(model)
    names = ExitSignals(values=f"{exit_}_signals", decision=f"{exit_}_decision")
    nodes, constants = task.signal_nodes(outputs, names.values, names.decision)
    extended.graph.node.extend(nodes)
    extended.graph.initializer.extend(constants)
    extended.graph.output.append(
        helper.make_tensor_value_info(names.values, TensorProto.FLOAT, [batch, len(task.signal_names)])
    )
    dtype = helper.np_dtype_to_tensor_dtype(task.decision_dtype)
    extended.graph.output.append(helper.make_tensor_value_info(names.decision, dtype, [batch, *task.decision_shape]))
    onnx.checker.check_model(extended, full_check=True)
    return extended, names
