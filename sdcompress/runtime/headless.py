"""Leave out of an ONNX file what only some of its outputs need, such as the head of an exit that no sample takes.

Nothing is decoded but names: nodes and stored tensors are copied as they are, or not at all. So neither torch nor onnx
is needed where an artifact runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sdcompress.artifact.protobuf import LENGTH, Field, fields

__all__ = ["with_outputs"]

# field numbers of onnx.proto
_MODEL_GRAPH = 7
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_TENSOR_NAME, _VALUE_NAME = 8, 1


def with_outputs(model: bytes, kept: Collection[str]) -> bytes:
    """Return an ONNX file with some of its outputs, and without the nodes and stored tensors that only others need.

    Args:
        model: bytes of the file.
        kept: names of the outputs that stay.

    Raises:
        Refused: if the bytes are no ONNX file.
    """
    parts = (
        _encoded(field, _graph(field.content, kept)) if field.number == _MODEL_GRAPH else _encoded(field, field.content)
        for field in fields(memoryview(model))
    )
    return b"".join(parts)


def _graph(graph: memoryview, kept: Collection[str]) -> bytes:
    every = list(fields(graph))
    needed, nodes = set(kept), set[int]()
    for place in range(len(every) - 1, -1, -1):  # nodes stand in topological order
        node = every[place]
        if node.number == _NODE and not needed.isdisjoint(_strings(node.content, _NODE_OUTPUT)):
            needed.update(_read_by(node.content))
            nodes.add(place)

    def stays(place: int, field: Field) -> bool:
        if field.number == _NODE:
            return place in nodes
        if field.number == _INITIALIZER:
            return not needed.isdisjoint(_strings(field.content, _TENSOR_NAME))
        return field.number != _OUTPUT or not set(kept).isdisjoint(_strings(field.content, _VALUE_NAME))

    return b"".join(_encoded(field, field.content) for place, field in enumerate(every) if stays(place, field))


def _read_by(node: memoryview) -> Iterator[str]:
    """Yield the tensors that a node reads, in the branches and bodies within it too."""
    pending = [node]  # a stranger's graphs may be nested deeper than functions can call each other
    while pending:
        node = pending.pop()
        yield from _strings(node, _NODE_INPUT)
        for field in _graphs_within(node):
            if field.number == _NODE:
                pending.append(field.content)
            if field.number == _OUTPUT:
                yield from _strings(field.content, _VALUE_NAME)


def _graphs_within(node: memoryview) -> Iterator[Field]:
    """Yield the fields of the graphs in the attributes of a node."""
    for attribute in fields(node):
        if attribute.number == _NODE_ATTRIBUTE:
            for inner in fields(attribute.content):
                if inner.number in {_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS} and inner.wire == LENGTH:
                    yield from fields(inner.content)


def _strings(message: memoryview, number: int) -> list[str]:
    return [
        bytes(field.content).decode(errors="replace")
        for field in fields(message)
        if field.number == number and field.wire == LENGTH
    ]


def _encoded(field: Field, content: memoryview | bytes) -> bytes:
    tag = _varint(field.number << 3 | field.wire)
    return b"".join((tag, _varint(len(content)), content) if field.wire == LENGTH else (tag, content))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))
