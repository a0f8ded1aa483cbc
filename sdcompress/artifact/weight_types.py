"""Read the data types of the weights of an ONNX file without onnx, to check the precision in a manifest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sdcompress.artifact.protobuf import LENGTH, VARINT, fields, varints
from sdcompress.schema.graphs import Precision

__all__ = ["StoredWeights", "contradiction", "stored_weights"]

# field numbers of onnx.proto
_GRAPH, _NODE, _INITIALIZER, _ATTRIBUTE, _NODE_INPUT, _OP_TYPE = 7, 1, 5, 5, 1, 4
_ATTRIBUTE_GRAPHS = {6, 11}
_DIMS, _DATA_TYPE, _TENSOR_NAME = 1, 2, 8
_FLOAT, _UINT8, _INT8, _FLOAT16, _BFLOAT16, _FLOAT8 = 1, 2, 3, 10, 16, 17
_MAX_DEPTH = 64  # nested graphs


@dataclass
class StoredWeights:
    """Data types of the weights of a graph and its subgraphs.

    Attributes:
        elements: number of weights by ONNX data type.
        codes: data types of the zero points of QuantizeLinear and DequantizeLinear.
        tensors: data type and number of elements by name.
    """

    elements: Counter[int] = field(default_factory=Counter)
    codes: set[int] = field(default_factory=set)
    tensors: dict[str, tuple[int, int]] = field(default_factory=dict)


def stored_weights(model: bytes) -> StoredWeights:
    """Read the weights of an ONNX file.

    Raises:
        ValueError: if the bytes are not a protobuf message, or graphs are nested too deep.
    """
    weights, quantizers = StoredWeights(), list[tuple[str, ...]]()
    for number, content in _messages(memoryview(model)):
        if number == _GRAPH:
            _read_graph(content, weights, quantizers, depth=0)
    for _kind, *names in quantizers:
        if len(names) > 2 and names[2] in weights.tensors:
            weights.codes.add(weights.tensors[names[2]][0])
    # integers are weights only if they are dequantised: shapes and indices are integers too
    quantized = {names[1] for names in quantizers if names[0] == "DequantizeLinear" and len(names) > 1}
    for name, (kind, elements) in weights.tensors.items():
        if kind in {_FLOAT, _FLOAT16, _BFLOAT16} or name in quantized:
            weights.elements[kind] += elements
    return weights


def contradiction(precision: Precision, graphs: list[StoredWeights]) -> str:
    """Return why graphs do not have the precision of their manifest; empty if they may have it.

    Args:
        precision: that of the manifest.
        graphs: all segments in that precision. One alone may hold no weights to quantise.
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
    if precision != "fp32":
        return "" if narrow[precision] else f"no weight is stored as {precision} stores them"
    if elements[_INT8] or elements[_FLOAT8] or max(elements[_FLOAT16], elements[_BFLOAT16]) > elements[_FLOAT]:
        return f"weights are stored as {next(name for name, is_stored in narrow.items() if is_stored)} stores them"
    return ""


def _read_graph(content: memoryview, weights: StoredWeights, quantizers: list[tuple[str, ...]], *, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("graphs are nested too deep")
    for number, part in _messages(content):
        if number == _INITIALIZER:
            name, kind, elements = _tensor(part)
            weights.tensors[name] = (kind, elements)
        elif number == _NODE:
            _read_node(part, weights, quantizers, depth=depth)


def _read_node(content: memoryview, weights: StoredWeights, quantizers: list[tuple[str, ...]], *, depth: int) -> None:
    op_type, inputs = "", list[str]()
    for number, part in _messages(content):
        if number == _OP_TYPE:
            op_type = _text(part)
        elif number == _NODE_INPUT:
            inputs.append(_text(part))
        elif number == _ATTRIBUTE:
            for inner, graph in _messages(part):
                if inner in _ATTRIBUTE_GRAPHS:
                    _read_graph(graph, weights, quantizers, depth=depth + 1)
    if op_type in {"QuantizeLinear", "DequantizeLinear"}:
        quantizers.append((op_type, *inputs))


def _tensor(content: memoryview) -> tuple[str, int, int]:
    """Name, data type and number of elements."""
    name, kind, dims = "", 0, list[int]()
    for field_ in fields(content):
        if field_.number == _TENSOR_NAME:
            name = _text(field_.content)
        elif field_.number == _DATA_TYPE:
            kind = field_.value
        elif field_.number == _DIMS:
            dims += [field_.value] if field_.wire == VARINT else varints(field_.content)
    return name, kind, math.prod(dims)


def _messages(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    for field_ in fields(content):
        if field_.wire == LENGTH:
            yield field_.number, field_.content


def _text(content: memoryview) -> str:
    return bytes(content).decode("utf-8", "replace")
