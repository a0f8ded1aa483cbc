"""Order the products of GELU as the runtimes look for it: onnxruntime then runs one operator instead of five.

The exporter writes ``x * (0.5 * (1 + erf(x / sqrt(2))))``, and onnxruntime (1.32) fuses
``(x * (1 + erf(x / sqrt(2)))) * 0.5``. A product with a half is exact, so both have the same bits.
"""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import numpy_helper

from sdcompress.onnx_graph.dataflow import Dataflow

__all__ = ["reorder_gelu"]


def reorder_gelu(model: onnx.ModelProto) -> None:
    """Multiply by a half last in each GELU of the graph, in place.

    Args:
        model: nodes in topological order.
    """
    flow = Dataflow(model)
    readers = Counter(name for uses in flow.uses for name in uses)
    readers.update(value.name for value in model.graph.output)
    for node in flow.nodes:
        if node.op_type != "Mul":
            continue
        for x, product in (node.input, reversed(node.input)):
            halving = _producer(flow, product, "Mul")
            if halving is None or readers[product] > 1:
                continue
            factors = _half_and_sum(flow, halving, x)
            if factors is not None:
                half, total = factors
                halving.input[:], node.input[:] = [x, total], [product, half]
                break


def _half_and_sum(flow: Dataflow, product: onnx.NodeProto, x: str) -> tuple[str, str] | None:
    """The names of 0.5 and ``1 + erf(x / c)``, if the node multiplies them."""
    for half, total in (product.input, reversed(product.input)):
        stored, adding = flow.initializers.get(half), _producer(flow, total, "Add")
        if stored is None or adding is None or not _is_half(stored):
            continue
        for erf in (_producer(flow, summand, "Erf") for summand in adding.input):
            scaled = None if erf is None else _producer(flow, erf.input[0], "Div", "Mul")
            if scaled is not None and x in scaled.input:
                return half, total
    return None


def _producer(flow: Dataflow, tensor: str, *op_types: str) -> onnx.NodeProto | None:
    index = flow.producer.get(tensor)
    node = None if index is None else flow.nodes[index]
    return node if node is not None and node.op_type in op_types else None


def _is_half(stored: onnx.TensorProto) -> bool:
    return not stored.dims and float(numpy_helper.to_array(stored)) == 0.5
