"""Put graphs beside each other in one: names that do not meet, and nothing that nobody needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from sdcompress.onnx_graph.dataflow import reads

__all__ = ["Renaming", "drop_unused"]


class Renaming:
    """Gives a segment's tensors names of their own, but for its inputs, which others have named.

    Args:
        prefix: of the new names.
        given: old name -> new name, of the inputs.
    """

    def __init__(self, prefix: str, given: Mapping[str, str]) -> None:
        self._prefix, self._given = prefix, given

    def name(self, old: str) -> str:
        """The new name; what has none, such as an input that is left out, stays without."""
        return self._given.get(old, f"{self._prefix}/{old}" if old else old)

    def tensor(self, old: onnx.TensorProto) -> onnx.TensorProto:
        """A stored tensor under its new name."""
        new = onnx.TensorProto()
        new.CopyFrom(old)
        new.name = self.name(old.name)
        return new

    def node(self, old: onnx.NodeProto) -> onnx.NodeProto:
        """A node with new names, those in its subgraphs included."""
        new = onnx.NodeProto()
        new.CopyFrom(old)
        new.name = self.name(old.name)
        new.input[:] = [self.name(name) for name in old.input]
        new.output[:] = [self.name(name) for name in old.output]
        for graph in _subgraphs(new):
            renamed = [self.node(node) for node in graph.node]
            del graph.node[:]
            graph.node.extend(renamed)
            for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
                value.name = self.name(value.name)
        return new


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from (attribute.g,) if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove, in place, what no output needs: heads where nobody leaves, signals that the policy does not look at."""
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        for inner in _subgraphs(node):
            drop_unused(inner)
        needed |= set(reads(node))
        kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    stored = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(stored)
