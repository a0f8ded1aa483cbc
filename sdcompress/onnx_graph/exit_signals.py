"""Add the nodes to a graph that compute an exit's signals, a few numbers for each image instead of all logits.

On a GPU the host then reads back a few bytes of each exit. On a CPU it is as fast as computing the largest probability
outside the graph. The layout 'graph' needs them. Thresholds stay in the manifest.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.edit import copy_model
from sdcompress.schema.manifest import ExitSignals

__all__ = ["add_signals", "signal_nodes"]


def add_signals(model: onnx.ModelProto, exit_: str, logits: str, *, batch: str) -> tuple[onnx.ModelProto, ExitSignals]:
    """A copy of a segment with an exit's signals as further outputs; see ``ExitSignals``.

    Args:
        model: the segment.
        exit_: the exit's name.
        logits: name of its logits, [batch, K], K > 1.
        batch: name of the batch axis.
    """
    extended = copy_model(model)
    names = ExitSignals(values=f"{exit_}_signals", answer=f"{exit_}_answer")
    nodes, constants = signal_nodes(logits, names)
    extended.graph.node.extend(nodes)
    extended.graph.initializer.extend(constants)
    extended.graph.output.append(helper.make_tensor_value_info(names.values, TensorProto.FLOAT, [batch, 3]))
    extended.graph.output.append(helper.make_tensor_value_info(names.answer, TensorProto.INT64, [batch]))
    onnx.checker.check_model(extended, full_check=True)
    return extended, names


def signal_nodes(
    logits: str, names: ExitSignals, *, answer_of: str | None = None
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes that compute an exit's signals, and their constants; all further names begin with that of the logits.

    LogSoftmax is one operator, so that a probability of 0 adds 0 to the entropy and not NaN. The predicted class is the
    argmax of the logits: two probabilities may round to the same number where their logits still differ.

    Args:
        logits: name of the logits, divided by the temperature if there is one.
        names: of the signals.
        answer_of: name of the logits before division by the temperature, which may also round a difference away.
    """

    def name_of(suffix: str) -> str:
        return f"{logits}/{suffix}"

    constants = {"two": np.array([2]), "classes": np.array([1])}
    nodes = [
        helper.make_node("LogSoftmax", [logits], [name_of("log")], axis=1),
        helper.make_node("Exp", [name_of("log")], [name_of("p")]),
        helper.make_node("TopK", [name_of("p"), name_of("two")], [name_of("top"), name_of("order")], axis=1),
        helper.make_node("Mul", [name_of("p"), name_of("log")], [name_of("terms")]),
        helper.make_node("ReduceSum", [name_of("terms"), name_of("classes")], [name_of("sum")], keepdims=1),
        helper.make_node("Neg", [name_of("sum")], [name_of("entropy")]),
        helper.make_node("Concat", [name_of("top"), name_of("entropy")], [names.values], axis=1),
        helper.make_node("ArgMax", [answer_of or logits], [names.answer], axis=1, keepdims=0),
    ]
    return nodes, [numpy_helper.from_array(value.astype(np.int64), name_of(name)) for name, value in constants.items()]
