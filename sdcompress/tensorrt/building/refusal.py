"""What to say of a graph that TensorRT's ONNX parser refuses. Pure: the parser's facts in, an error out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sdcompress.errors import UsageError

__all__ = ["Fault", "refused"]


_WITHOUT = "train the network without the operator; the backend 'onnxruntime' runs the artifact as it is"


class Fault(NamedTuple):
    """One error of the parser.

    Attributes:
        operator: e.g. "LayerNormalization"; empty where no node is at fault.
        node: the node's name, or its number.
        description: what the parser says.
    """

    operator: str
    node: str
    description: str


def refused(file: str, faults: Sequence[Fault], *, tensorrt: str, reason: str) -> UsageError:
    """The error for a segment that cannot be parsed: node, segment and the way out.

    Args:
        file: the segment's.
        faults: in the parser's order; perhaps none.
        tensorrt: its version.
        reason: from the log.
    """
    named = [
        f"{fault.operator or 'the operator'} of the node '{fault.node}' ({fault.description})" for fault in faults[:3]
    ]
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    found = f"TensorRT {tensorrt} cannot parse '{file}': {'; '.join(named) or reason}{more}."
    if not tensorrt.startswith("8."):
        return UsageError(
            found,
            allowed="what its parser knows: github.com/onnx/onnx-tensorrt, docs/operators.md",
            next_step=f"use a later TensorRT, export the checkpoint with another --opset, or {_WITHOUT}",
        )
    return UsageError(
        f"{found} Its log: {reason}." if named else found,
        allowed="what its parser knows, up to opset 17: github.com/onnx/onnx-tensorrt, release 8, docs/operators.md",
        next_step=f"export the checkpoint with --opset 16, use TensorRT 10 or 11, or {_WITHOUT}",
    )
