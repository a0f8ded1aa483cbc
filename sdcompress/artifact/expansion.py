"""Refuse ONNX files whose functions call functions so often that a runtime, which inlines them, never ends.

A function that calls another one twice, through 40 levels, takes 3 kB and becomes a million million nodes.
"""

from __future__ import annotations

import mmap
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sdcompress.artifact.protobuf import fields
from sdcompress.untrusted import Refused

__all__ = ["check_expansion"]

_MOST_NODES = 1_000_000
_GRAPH, _FUNCTION = 7, 25  # field numbers of a ModelProto
_NODES, _GRAPH_NODES, _GRAPHS = 7, 1, (6, 11)  # of a FunctionProto, a GraphProto, an AttributeProto
_FUNCTION_NAME = (10, 1, 13)  # domain, name and overload of a FunctionProto
_ATTRIBUTES, _OPERATOR_NAME = 5, (7, 4, 8)  # of a NodeProto

_Name = tuple[bytes, ...]
_MAIN: _Name = ()


@dataclass
class _Body:
    """The nodes of a function or of the graph, and how often they call each operator."""

    nodes: int = 0
    calls: Counter[_Name] = field(default_factory=Counter)


def check_expansion(path: Path) -> None:
    """Refuse an ONNX file whose functions become too many nodes.

    Args:
        path: a regular file that is not empty.

    Raises:
        Refused: if they do or call themselves, or the file is not ONNX.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    parts = [(one.number, one.content) for one in fields(model) if one.number in {_GRAPH, _FUNCTION}]
    functions = [content for number, content in parts if number == _FUNCTION]
    if not functions:
        return
    bodies = {_MAIN: _body(_parts(content, _GRAPH_NODES) for number, content in parts if number == _GRAPH)}
    for content in functions:
        if (name := _name(content, _FUNCTION_NAME)) in bodies:
            raise Refused("two of its functions have one name")
        bodies[name] = _body([_parts(content, _NODES)])
    _check(bodies)


def _check(bodies: dict[_Name, _Body]) -> None:
    callers, unknown = defaultdict[_Name, list[_Name]](list), dict[_Name, int]()
    for name, body in bodies.items():
        called = body.calls.keys() & bodies.keys()
        unknown[name] = len(called)
        for one in called:
            callers[one].append(name)
    totals, ready = dict[_Name, int](), [name for name, count in unknown.items() if count == 0]
    while ready:
        name = ready.pop()
        body = bodies[name]
        totals[name] = body.nodes + sum(count * totals.get(one, 0) for one, count in body.calls.items())
        if totals[name] > _MOST_NODES:
            raise Refused(f"its functions become more than {_MOST_NODES:,} nodes")
        for caller in callers[name]:
            unknown[caller] -= 1
            if unknown[caller] == 0:
                ready.append(caller)
    if len(totals) < len(bodies):
        raise Refused("its functions call themselves")


def _body(graphs: Iterable[list[memoryview]]) -> _Body:
    """Return what nodes hold, with those of the graphs in their attributes."""
    body, pending = _Body(), [node for nodes in graphs for node in nodes]
    while pending:
        node = pending.pop()
        body.nodes += 1
        body.calls[_name(node, _OPERATOR_NAME)] += 1
        for attribute in _parts(node, _ATTRIBUTES):
            for graph in _parts(attribute, *_GRAPHS):
                pending += _parts(graph, _GRAPH_NODES)
    return body


def _name(message: memoryview, numbers: tuple[int, ...]) -> _Name:
    found = {one.number: bytes(one.content) for one in fields(message) if one.number in numbers}
    return tuple(found.get(number, b"") for number in numbers)


def _parts(message: memoryview, *numbers: int) -> list[memoryview]:
    return [one.content for one in fields(message) if one.number in numbers]
