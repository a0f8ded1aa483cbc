"""Let a graph compute what the exit policy judges by: a few numbers for each image instead of all its logits.

On a GPU the host then reads back some bytes of each exit; on a CPU it is as fast as computing the largest probability
outside. The layout 'graph' needs it anyway. Thresholds are not in here: they are the manifest's.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from sdcompress.schema.manifest import ExitSignals
from sdcompress.tasks import Task

__all__ = ["add_signals"]


def add_signals(
    model: onnx.ModelProto, exit_: str, logits: str, task: Task, *, batch: str
) -> tuple[onnx.ModelProto, ExitSignals]:
    """A copy of a segment that also gives an exit's signals; see ``ExitSignals``.

    Args:
        model: the segment.
        exit_: the exit's name.
        logits: name of its logits, [batch, K], K > 1.
        task: what the logits mean.
        batch: name of the batch axis.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    names = ExitSignals(values=f"{exit_}_signals", decision=f"{exit_}_decision")
    nodes, constants = task.signal_nodes(logits, names.values, names.decision)
    found.graph.node.extend(nodes)
    found.graph.initializer.extend(constants)
    found.graph.output.append(
        helper.make_tensor_value_info(names.values, TensorProto.FLOAT, [batch, len(task.signal_names)])
    )
    found.graph.output.append(helper.make_tensor_value_info(names.decision, TensorProto.INT64, [batch]))
    onnx.checker.check_model(found, full_check=True)
    return found, names
