"""Edit ONNX graphs: copy, add nodes, rename tensors, drop what no output needs, strip metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sdcompress.onnx_graph.dataflow import names_read

__all__ = [
    "NewNodes",
    "Renaming",
    "copy_model",
    "drop_unused",
    "drop_unused_initializers",
    "graphs_within",
    "replace_nodes",
    "strip_metadata",
]


class Renaming:
    """Prefixes the tensors and nodes of a segment, so that several segments fit into one graph.

    Args:
        prefix: of the new names.
        input_names: old name -> new name, of the segment's inputs.
    """

    def __init__(self, prefix: str, input_names: Mapping[str, str]) -> None:
        self._prefix, self._input_names = prefix, input_names

    def name(self, old: str) -> str:
        """Return the new name; an empty name (an optional input that is left out) stays empty."""
        return self._input_names.get(old, f"{self._prefix}/{old}" if old else old)

    def tensor(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """Return a copy of a stored tensor under its new name."""
        renamed = onnx.TensorProto()
        renamed.CopyFrom(tensor)
        renamed.name = self.name(tensor.name)
        return renamed

    def node(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return a copy of a node with new names, those in its subgraphs included."""
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        renamed.name = self.name(node.name)
        renamed.input[:] = [self.name(name) for name in node.input]
        renamed.output[:] = [self.name(name) for name in node.output]
        for graph in _subgraphs(renamed):
            replace_nodes(graph, [self.node(inner) for inner in graph.node])
            for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
                value.name = self.name(value.name)
        return renamed


class NewNodes:
    """Nodes and constants for a graph, with names that begin with one prefix.

    Args:
        prefix: of all new names.

    Attributes:
        nodes: in the order in which they were added.
        constants: likewise.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        out = out or f"{self._prefix}/{operator}-{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [out], name=out, **attributes))
        return out

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Add a constant; returns its name."""
        name = f"{self._prefix}/constant-{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a deep copy of a model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give a graph these nodes, in place.

    Args:
        graph: its own nodes are dropped.
        nodes: in topological order; they may be nodes of the graph.
    """
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove, in place, the nodes and stored tensors that no output depends on, and what is known of their values."""
    needed, used_nodes = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        for inner in _subgraphs(node):
            drop_unused(inner)
        needed |= set(names_read(node))
        used_nodes.append(node)
    replace_nodes(graph, reversed(used_nodes))
    _keep_initializers(graph, needed)
    values = [value for value in graph.value_info if value.name in needed]
    del graph.value_info[:]
    graph.value_info.extend(values)


def drop_unused_initializers(graph: onnx.GraphProto) -> None:
    """Remove, in place, the stored tensors that no node reads."""
    _keep_initializers(graph, {name for node in graph.node for name in names_read(node)})


def strip_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without metadata, doc strings and operator sets that no node uses.

    The exporter writes source lines and paths of the network into every node. They would show the user's folders to
    every reader of the model, and make its bytes depend on where the export ran.

    Args:
        model: is not modified.
    """
    clean = copy_model(model)
    for message in _messages(clean):
        message.ClearField("doc_string")
        message.ClearField("metadata_props")
    used = {node.domain for graph in graphs_within(clean.graph) for node in graph.node}
    used |= {node.domain for function in clean.functions for node in function.node}
    opsets = [opset for opset in clean.opset_import if opset.domain in used | {""}]
    del clean.opset_import[:]
    clean.opset_import.extend(opsets)
    return clean


def _keep_initializers(graph: onnx.GraphProto, names: set[str]) -> None:
    tensors = [tensor for tensor in graph.initializer if tensor.name in names]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _messages(model: onnx.ModelProto) -> Iterator[Any]:
    yield model
    for function in model.functions:
        yield from (function, *function.node, *function.value_info)
    for graph in graphs_within(model.graph):
        yield graph
        yield from (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)


def graphs_within(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all subgraphs of its nodes, outer ones first."""
    yield graph
    for node in graph.node:
        for subgraph in _subgraphs(node):
            yield from graphs_within(subgraph)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from (attribute.g,) if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
