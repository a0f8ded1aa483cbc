"""A node of an ONNX file by its number: engines are built where there may be no onnx, and 8.5 gives no names.

Only what is needed of the protocol buffers that ONNX files are (onnx.proto; protobuf.dev/programming-guides/encoding):
a message is a sequence of fields, each a number and a type in one varint, then a varint, 4 or 8 bytes, or a length and
as many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["node_at"]

_GRAPH = 7  # of ModelProto
_NODE = 1  # of GraphProto
_NAME, _OPERATOR = 3, 4  # of NodeProto
_FIXED = {1: 8, 5: 4}


def node_at(model: bytes, index: int) -> tuple[str, str] | None:
    """Operator and name of a node; None if there is none of that number, or the file is no ONNX.

    Args:
        model: bytes of a file that could not be parsed.
        index: of the node in the graph.
    """
    try:
        return _node_at(memoryview(model), index)
    except (IndexError, KeyError, UnicodeDecodeError):  # an error is being told already: what is left out is its name
        return None


def _node_at(model: memoryview, index: int) -> tuple[str, str] | None:
    graph = next((value for number, value in _fields(model) if number == _GRAPH), memoryview(b""))
    nodes = [value for number, value in _fields(graph) if number == _NODE]
    if not 0 <= index < len(nodes):
        return None
    texts = {number: str(value, "utf-8") for number, value in _fields(nodes[index]) if number in {_NAME, _OPERATOR}}
    return texts.get(_OPERATOR, ""), texts.get(_NAME, "")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field that has a length; numbers are passed over."""
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
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
