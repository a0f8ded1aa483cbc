"""Remove from an ONNX model what describes the machine it was made on: stack traces, paths, the exporter's notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

__all__ = ["tidy"]


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without metadata and doc strings, and with the operator sets it uses only.

    The exporter writes the source lines and paths of the network into every node, which makes the bytes depend on
    where it ran and shows the user's folders to whoever gets the model.

    Args:
        model: left as it is.
    """
    clean = onnx.ModelProto()
    clean.CopyFrom(model)
    for message in _messages(clean):
        message.ClearField("doc_string")
        message.ClearField("metadata_props")
    used = {node.domain for graph in _graphs(clean.graph) for node in graph.node}
    used |= {node.domain for function in clean.functions for node in function.node}
    kept = [opset for opset in clean.opset_import if opset.domain in used | {""}]
    del clean.opset_import[:]
    clean.opset_import.extend(kept)
    return clean


def _messages(model: onnx.ModelProto) -> Iterator[Any]:
    yield model
    for function in model.functions:
        yield from (function, *function.node, *function.value_info)
    for graph in _graphs(model.graph):
        yield graph
        yield from (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
            for subgraph in inner:
                yield from _graphs(subgraph)
