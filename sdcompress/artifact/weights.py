"""What numbers a graph stores, read from its bytes without onnx: whether a precision is what a manifest says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sdcompress.artifact.protobuf import LENGTH, VARINT, fields, varints
from sdcompress.schema.graphs import Precision

__all__ = ["Stored", "contradiction", "stored"]

# numbers of the fields of onnx.proto
_GRAPH, _NODE, _INITIALIZER, _ATTRIBUTE, _NODE_INPUT, _OP_TYPE = 7, 1, 5, 5, 1, 4
_ATTRIBUTE_GRAPHS = {6, 11}
_DIMS, _DATA_TYPE, _TENSOR_NAME = 1, 2, 8
_FLOAT, _UINT8, _INT8, _FLOAT16, _BFLOAT16, _FLOAT8 = 1, 2, 3, 10, 16, 17
_DEEPEST = 64  # graphs within nodes


@dataclass
class Stored:
    """The weights of a graph, those of the graphs within its nodes among them.

    Attributes:
        elements: numbers by ONNX's data type, of what is stored as weights.
        codes: data types of the zero points of QuantizeLinear and DequantizeLinear.
        tensors: data type and number of elements by name.
    """

    elements: Counter[int] = field(default_factory=Counter)
    codes: set[int] = field(default_factory=set)
    tensors: dict[str, tuple[int, int]] = field(default_factory=dict)


def stored(model: bytes) -> Stored:
    """The weights of an ONNX file.

    Raises:
        ValueError: if the bytes are not a protobuf message, or graphs are nested too deep.
    """
    found, pairs = Stored(), list[tuple[str, ...]]()
    for number, content in _messages(memoryview(model)):
        if number == _GRAPH:
            _read_graph(content, found, pairs, depth=0)
    for _kind, *names in pairs:
        if len(names) > 2 and names[2] in found.tensors:
            found.codes.add(found.tensors[names[2]][0])
    # integers count as weights only where they are codes: shapes and indices are integers too
    quantized = {names[1] for names in pairs if names[0] == "DequantizeLinear" and len(names) > 1}
    for name, (kind, elements) in found.tensors.items():
        if kind in {_FLOAT, _FLOAT16, _BFLOAT16} or name in quantized:
            found.elements[kind] += elements
    return found


def contradiction(said: Precision, graphs: list[Stored]) -> str:
    """Why graphs are not in the precision that a manifest gives to all of them; empty if they may be.

    Args:
        said: by the manifest.
        graphs: of all segments in that precision. A single one may hold no weight that could be rounded.
    """
    elements = sum((graph.elements for graph in graphs), Counter[int]())
    codes = set[int]().union(*(graph.codes for graph in graphs))
    narrow = {
        "fp8": elements[_FLOAT8] > 0,
        "uint8": elements[_INT8] > 0 and _UINT8 in codes,
        "int8": elements[_INT8] > 0 and _UINT8 not in codes,
        "bf16": elements[_BFLOAT16] > 0,
        "fp16": elements[_FLOAT16] > 0 and not elements[_FLOAT8],
    }
    if said != "fp32":
        return "" if narrow[said] else f"no weight is stored as {said} stores them"
    if elements[_INT8] or elements[_FLOAT8] or max(elements[_FLOAT16], elements[_BFLOAT16]) > elements[_FLOAT]:
        return f"weights are stored as {next(name for name, there in narrow.items() if there)} stores them"
    return ""


def _read_graph(content: memoryview, found: Stored, pairs: list[tuple[str, ...]], *, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("graphs are nested too deep")
    for number, part in _messages(content):
        if number == _INITIALIZER:
            name, kind, elements = _tensor(part)
            found.tensors[name] = (kind, elements)
        elif number == _NODE:
            _read_node(part, found, pairs, depth=depth)


def _read_node(content: memoryview, found: Stored, pairs: list[tuple[str, ...]], *, depth: int) -> None:
    op_type, inputs = "", list[str]()
    for number, part in _messages(content):
        if number == _OP_TYPE:
            op_type = _text(part)
        elif number == _NODE_INPUT:
            inputs.append(_text(part))
        elif number == _ATTRIBUTE:
            for inner, graph in _messages(part):
                if inner in _ATTRIBUTE_GRAPHS:
                    _read_graph(graph, found, pairs, depth=depth + 1)
    if op_type in {"QuantizeLinear", "DequantizeLinear"}:
        pairs.append((op_type, *inputs))


def _tensor(content: memoryview) -> tuple[str, int, int]:
    """Name, data type and number of elements."""
    name, kind, dims = "", 0, list[int]()
    for one in fields(content):
        if one.number == _TENSOR_NAME:
            name = _text(one.content)
        elif one.number == _DATA_TYPE:
            kind = one.value
        elif one.number == _DIMS:
            dims += [one.value] if one.wire == VARINT else varints(one.content)
    return name, kind, math.prod(dims)


def _messages(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    for one in fields(content):
        if one.wire == LENGTH:
            yield one.number, one.content


def _text(content: memoryview) -> str:
    return bytes(content).decode("utf-8", "replace")
