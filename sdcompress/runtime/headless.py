"""Join the segments around exits that no sample takes to one ONNX file, without the heads of these exits.

Nothing is decoded but names: nodes and stored tensors are copied as they are, or not at all. So neither torch nor onnx
is needed where an artifact runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from sdcompress.artifact.codes import Quantisation, keeps_codes
from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.artifact.protobuf import LENGTH, Field, fields
from sdcompress.schema.manifest import Segment

__all__ = ["joinable", "joined", "stretches", "with_outputs"]

# field numbers of onnx.proto
_MODEL_GRAPH = 7
_MODEL_MEANING = {1, 8, 20, 25}  # what nodes mean: version of the format, opsets, training, functions
_NODE, _NAME, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE = 1, 2, 5, 11, 12, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_TENSOR_NAME, _VALUE_NAME = 8, 1
_QUANTISERS = {"QuantizeLinear", "DynamicQuantizeLinear"}
_LARGEST = 2**31 - 1  # bytes, of a file that protobuf reads


def stretches(exits: int, unused: Collection[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last exit of each stretch that may run as one graph: samples exit at its end alone.

    Args:
        exits: number of all exits.
        unused: indices of those that no sample takes; never the last one.
    """
    first = 0
    for exit_index in range(exits):
        if exit_index not in unused:
            yield first, exit_index
            first = exit_index + 1


def joinable(segments: Sequence[Segment], target: ExecutionTarget) -> bool:
    """Return whether segments of these precisions may run as one graph, if ``joined`` can join them.

    Those in int8 would be slower: ONNX Runtime multiplies signed codes fast only where one node reads them. What other
    backends fuse in 8 bits is not known.

    Args:
        segments: that run one after the other.
        target: what runs them.
    """
    allowed = {"fp32", "uint8"} if target == ExecutionTarget() else {"fp32"}
    return {segment.precision for segment in segments} <= allowed


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


def joined(models: Sequence[bytes], kept: Collection[str]) -> bytes | None:
    """Return one ONNX file of several that run one after the other, with some of their outputs.

    A name that a later file uses for something else is changed in it, such as that of a scale. A tensor that one file
    dequantises and a later one quantises to the same codes is passed as codes. So all codes are those that the separate
    files give.

    Args:
        models: bytes of the files, in their order.
        kept: names of the outputs that stay.

    Returns:
        The file; None where files cannot be joined: they differ in the versions of operators, a node holds graphs,
        together they may be more than an ONNX file can hold, or a file quantises what depends on the floats of an
        earlier one. An operator that is fused across that border would round to other codes.

    Raises:
        Refused: if the bytes are no ONNX file.
    """
    if len(models) == 1:
        return with_outputs(models[0], kept)
    if sum(map(len, models)) > _LARGEST:
        return None
    parts = [list(fields(memoryview(model))) for model in models]
    meanings = [[bytes(field.content) for field in part if field.number in _MODEL_MEANING] for part in parts]
    whole = _Joined()
    for place, part in enumerate(parts):
        graph = [inner for field in part if field.number == _MODEL_GRAPH for inner in fields(field.content)]
        if meanings[place] != meanings[0] or not whole.add(graph, f"segment-{place}/"):
            return None
    head = [_encoded(field, field.content) for field in parts[0] if field.number != _MODEL_GRAPH]
    return with_outputs(b"".join((*head, _message(_MODEL_GRAPH, b"".join(whole.content)))), kept)


class _Joined:
    """A graph to which others are added, one behind the other.

    Attributes:
        content: its encoded fields.
    """

    def __init__(self) -> None:
        self.content: list[bytes] = []
        self._defined = dict[str, bytes | memoryview]()  # by name: the node that computes it, or the stored tensor
        self._ports = set[str]()

    def add(self, graph: Sequence[Field], prefix: str) -> bool:
        """Add a graph; return whether it can be joined.

        Args:
            graph: its fields.
            prefix: of names that mean something else already.
        """
        nodes = [field.content for field in graph if field.number == _NODE]
        if any(field.number == _SPARSE for field in graph) or any(True for node in nodes for _ in _graphs_within(node)):
            return False
        self.content += [_encoded(field, field.content) for field in graph if field.number == _NAME][: not self.content]
        others = dict[str, str]()
        floats = self._ports & self._defined.keys()  # what earlier graphs give, and what is computed of it
        for field in graph:
            if field.number == _INITIALIZER:
                self._define(field.content, _INITIALIZER, _TENSOR_NAME, others, prefix)
        for node in nodes:
            if not self._add_node(_renamed(node, _NODE_INPUT, others), others, floats, prefix):
                return False
        ports = [field for field in graph if field.number in {_INPUT, _OUTPUT}]
        names = [next(iter(_strings(field.content, _VALUE_NAME)), "") for field in ports]
        for field, name in zip(ports, names, strict=True):
            # what an earlier graph gives is no input any more
            if name not in self._ports and (field.number == _OUTPUT or name not in self._defined):
                self.content.append(_encoded(field, field.content))
            self._ports.add(name)
        return others.keys().isdisjoint(names)

    def _add_node(self, node: bytes | memoryview, others: dict[str, str], floats: set[str], prefix: str) -> bool:
        """Add a node; return whether codes are still those that the separate files give.

        Args:
            node: with the names of this graph.
            others: names of the file that mean something else in this graph; those of the node are added.
            floats: names of what depends on the floats of earlier graphs; those of the node are added.
            prefix: see ``add``.
        """
        names, reads_floats = _strings(node, _NODE_OUTPUT), not floats.isdisjoint(_strings(node, _NODE_INPUT))
        if reads_floats and not _QUANTISERS.isdisjoint(_strings(node, _NODE_TYPE)):
            codes = self._codes_before(node)
            others |= dict.fromkeys(names, codes or "")
            return codes is not None
        self._define(node, _NODE, _NODE_OUTPUT, others, prefix)
        if reads_floats:
            floats |= {others.get(name, name) for name in names}
        return True

    def _codes_before(self, quantize: bytes | memoryview) -> str | None:
        """Return the codes that were dequantised to what a QuantizeLinear reads, if it would make the same again."""
        dequantize = self._defined.get(next(iter(_strings(quantize, _NODE_INPUT)), ""), b"")
        pair = [_strings(node, _NODE_INPUT) for node in (dequantize, quantize)]
        stored = [[self._defined.get(name, b"") for name in names[1:]] for names in pair]
        plain = _is(dequantize, "DequantizeLinear") and _is(quantize, "QuantizeLinear")
        if not plain or any(len(tensors) != 2 for tensors in stored):
            return None
        before, after = (Quantisation(*tensors) for tensors in stored)
        return pair[0][0] if keeps_codes(before, after) else None

    def _define(self, content: bytes | memoryview, kind: int, number: int, others: dict[str, str], prefix: str) -> None:
        """Add a node or a stored tensor, unless it is there already."""
        names = [name for name in _strings(content, number) if name]
        known = [self._defined.get(name) for name in names]
        if names and all(one == content for one in known):
            return
        if any(one is not None for one in known):
            others |= {name: prefix + name for name in names}
            content = _renamed(content, number, others)
        self._defined |= dict.fromkeys((others.get(name, name) for name in names), content)
        if kind == _NODE:  # whose own names must differ too
            content = _renamed(content, _NODE_NAME, {name: prefix + name for name in _strings(content, _NODE_NAME)})
        self.content.append(_message(kind, content))


def _is(node: bytes | memoryview, operator: str) -> bool:
    """Return whether a node is an operator of ONNX itself, without attributes."""
    parts = [field.number for field in fields(memoryview(node))]
    standard = _NODE_ATTRIBUTE not in parts and not any(_strings(node, _NODE_DOMAIN))
    return standard and _strings(node, _NODE_TYPE) == [operator]


def _renamed(message: bytes | memoryview, number: int, names: Mapping[str, str]) -> bytes | memoryview:
    """Return a node or stored tensor in which the strings of a field have other names."""
    if names.keys().isdisjoint(_strings(message, number)):
        return message
    return b"".join(
        _encoded(field, names[name].encode())
        if field.number == number and (name := bytes(field.content).decode(errors="replace")) in names
        else _encoded(field, field.content)
        for field in fields(memoryview(message))
    )


def _message(number: int, content: bytes | memoryview) -> bytes:
    return _encoded(Field(number, LENGTH, 0, memoryview(content)), content)


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


def _strings(message: bytes | memoryview, number: int) -> list[str]:
    return [
        bytes(field.content).decode(errors="replace")
        for field in fields(memoryview(message))
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
