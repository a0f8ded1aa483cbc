"""Let a graph compute what the exit policy judges by: a few numbers for each image instead of all its logits.

On a GPU the host then reads back some bytes of each exit; on a CPU it is as fast as computing the largest probability
outside. The layout 'graph' needs it anyway. Thresholds are not in here: they are the manifest's.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.schema.manifest import ExitSignals

__all__ = ["add_signals", "signal_nodes"]


def add_signals(model: onnx.ModelProto, exit_: str, logits: str, *, batch: str) -> tuple[onnx.ModelProto, ExitSignals]:
    """A copy of a segment that also gives an exit's signals; see ``ExitSignals``.

    Args:
        model: the segment.
        exit_: the exit's name.
        logits: name of its logits, [batch, K], K > 1.
        batch: name of the batch axis.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    names = ExitSignals(values=f"{exit_}_signals", answer=f"{exit_}_answer")
    nodes, constants = signal_nodes(logits, names)
    found.graph.node.extend(nodes)
    found.graph.initializer.extend(constants)
    found.graph.output.append(helper.make_tensor_value_info(names.values, TensorProto.FLOAT, [batch, 3]))
    found.graph.output.append(helper.make_tensor_value_info(names.answer, TensorProto.INT64, [batch]))
    onnx.checker.check_model(found, full_check=True)
    return found, names


def signal_nodes(
    logits: str, names: ExitSignals, *, answer_of: str | None = None
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes that compute them, and their constants; every other name begins with that of the logits.

    The logarithm of the softmax is taken as a whole, so that a probability of 0 adds 0 to the entropy and not NaN. The
    answer is that of the logits: probabilities may round to equal ones where these still differ.

    Args:
        logits: name of the logits, over the temperature if there is one.
        names: of what is computed.
        answer_of: name of the logits without a temperature, which may round away a difference too.
    """

    def of(part: str) -> str:
        return f"{logits}/{part}"

    constants = {"two": np.array([2]), "classes": np.array([1])}
    nodes = [
        helper.make_node("LogSoftmax", [logits], [of("log")], axis=1),
        helper.make_node("Exp", [of("log")], [of("p")]),
        helper.make_node("TopK", [of("p"), of("two")], [of("top"), of("order")], axis=1),
        helper.make_node("Mul", [of("p"), of("log")], [of("terms")]),
        helper.make_node("ReduceSum", [of("terms"), of("classes")], [of("sum")], keepdims=1),
        helper.make_node("Neg", [of("sum")], [of("entropy")]),
        helper.make_node("Concat", [of("top"), of("entropy")], [names.values], axis=1),
        helper.make_node("ArgMax", [answer_of or logits], [names.answer], axis=1, keepdims=0),
    ]
    return nodes, [numpy_helper.from_array(value.astype(np.int64), of(name)) for name, value in constants.items()]
