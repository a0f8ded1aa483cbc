"""The dataflow of an ONNX graph: which node reads which tensor, and which values depend on the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum

import onnx
from onnx import helper

__all__ = ["Dataflow", "Dependence", "names_read", "number_attribute"]


class Dependence(Enum):
    """What a node's outputs depend on."""

    CONSTANT = "weights and constants only"
    SHAPE = "the shapes of the data only"
    DATA = "the data"


class Dataflow:
    """Producers, readers and kinds of the tensors of a graph.

    Args:
        model: nodes in topological order, as ONNX demands.

    Attributes:
        nodes: the graph's nodes.
        uses: for each node the names it reads, those captured by subgraphs included.
        producer: for each tensor the index of the node that computes it.
        kinds: for each node what its outputs depend on.
        initializers: the stored tensors by name.
        values: what the graph says of its inputs, its outputs and the tensors between, by name.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes = list(graph.node)
        self.uses = [list(names_read(node)) for node in self.nodes]
        self.producer = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
        self.kinds: list[Dependence] = []
        for node, uses in zip(self.nodes, self.uses, strict=True):
            self.kinds.append(self._kind(node, uses))

    def ancestors(self, tensors: Iterable[str]) -> set[int]:
        """Return indices of all nodes that the tensors depend on, their own producers included."""
        nodes: set[int] = set()
        pending = list(tensors)
        while pending:
            index = self.producer.get(pending.pop())
            if index is not None and index not in nodes:
                nodes.add(index)
                pending += self.uses[index]
        return nodes

    def axes(self, tensor: str) -> list[int | str] | None:
        """Return the axes of a tensor, a dynamic one by its name, an unknown one as 0; None where it has no shape."""
        value = self.values.get(tensor)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]

    def _kind(self, node: onnx.NodeProto, uses: list[str]) -> Dependence:
        kinds = {
            self.kinds[self.producer[name]] if name in self.producer else Dependence.DATA
            for name in uses
            if name not in self.initializers
        }
        if not kinds - {Dependence.CONSTANT}:
            return Dependence.CONSTANT
        shape_only = node.op_type in {"Shape", "Size"} or Dependence.DATA not in kinds
        return Dependence.SHAPE if shape_only else Dependence.DATA


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Return the names that a node reads, those captured by its subgraphs included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            local = {name for inner in graph.node for name in inner.output}
            local |= {value.name for value in (*graph.initializer, *graph.input)}
            names = [name for inner in graph.node for name in names_read(inner)]
            yield from (name for name in (*names, *(value.name for value in graph.output)) if name not in local)


def number_attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """Return an attribute of a node that is a number."""
    return next((helper.get_attribute_value(given) for given in node.attribute if given.name == name), default)
