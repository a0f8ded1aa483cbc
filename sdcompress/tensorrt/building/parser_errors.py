"""The error for a graph that TensorRT's ONNX parser refuses, with the node's name and operator.

TensorRT 8.5 gives only a node's number, and engines are built where onnx may be missing. So ``node_at`` reads the few
fields it needs from the protocol buffer itself (onnx.proto; protobuf.dev/programming-guides/encoding). A message is a
sequence of fields: a number and a type in one varint, then a varint, 4 or 8 bytes, or a length and that many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sdcompress.errors import UsageError

__all__ = ["Fault", "node_at", "parse_error"]

_GRAPH = 7  # of ModelProto
_NODE = 1  # of GraphProto
_NAME, _OPERATOR = 3, 4  # of NodeProto
_FIXED = {1: 8, 5: 4}
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


def parse_error(file: str, faults: Sequence[Fault], *, tensorrt: str, reason: str) -> UsageError:
    """Return the error for a segment that cannot be parsed, with the node, the segment and the next step.

    Args:
        file: the segment's name.
        faults: in the parser's order; may be empty.
        tensorrt: its version.
        reason: from the log.
    """
    named = [
        f"{fault.operator or 'the operator'} of the node '{fault.node}' ({fault.description})" for fault in faults[:3]
    ]
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    problem = f"TensorRT {tensorrt} cannot parse '{file}': {'; '.join(named) or reason}{more}."
    if not tensorrt.startswith("8."):
        return UsageError(
            problem,
            allowed="what its parser knows: github.com/onnx/onnx-tensorrt, docs/operators.md",
            next_step=f"use a later TensorRT, export the checkpoint with another --opset, or {_WITHOUT}",
        )
    return UsageError(
        f"{problem} Its log: {reason}." if named else problem,
        allowed="what its parser knows, up to opset 17: github.com/onnx/onnx-tensorrt, release 8, docs/operators.md",
        next_step=f"export the checkpoint with --opset 16, use TensorRT 10 or 11, or {_WITHOUT}",
    )


def node_at(model: bytes, index: int) -> tuple[str, str] | None:
    """Return operator and name of a node; None if no node has that number, or the file is no ONNX.

    Args:
        model: bytes of a file that could not be parsed.
        index: of the node in the graph.
    """
    try:
        return _node_at(memoryview(model), index)
    except (
        IndexError,
        KeyError,
        UnicodeDecodeError,
    ):  # the caller reports an error already; only the node's name is missing
        return None


def _node_at(model: memoryview, index: int) -> tuple[str, str] | None:
    graph = next((value for number, value in _fields(model) if number == _GRAPH), memoryview(b""))
    nodes = [value for number, value in _fields(graph) if number == _NODE]
    if not 0 <= index < len(nodes):
        return None
    texts = {number: str(value, "utf-8") for number, value in _fields(nodes[index]) if number in {_NAME, _OPERATOR}}
    return texts.get(_OPERATOR, ""), texts.get(_NAME, "")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field with a length; other fields are skipped."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            yield key >> 3, message[at : at + length]
            at += length
        else:
            at += _FIXED[kind]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and the position behind it."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
