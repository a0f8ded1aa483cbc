"""Store tables of embeddings as float16: they are most of the bytes of a small text encoder."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.edit import replace_nodes

__all__ = ["halve_embeddings"]

_LEAST_VALUES = 2**16  # smaller tables save nothing
_LARGEST = float(np.finfo(np.float16).max)


def halve_embeddings(graph: onnx.GraphProto) -> None:
    """Store each table that only Gather nodes read as float16, in place; the rows that are read become float32 again.

    8-bit codes would be half of that, and put the logits of MiniLM 1.3 times as far from float32.

    Args:
        graph: float32 tables [rows, columns] as initialisers.
    """
    tables = {tensor.name: tensor for tensor in graph.initializer if _is_table(graph, tensor)}
    for name, tensor in tables.items():
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "Gather" and node.input[0] in tables:
            (output,) = node.output
            node.output[0] = half = f"{output}/half"
            nodes.append(helper.make_node("Cast", [half], [output], name=half, to=TensorProto.FLOAT))
    replace_nodes(graph, nodes)


def _is_table(graph: onnx.GraphProto, tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or np.prod(tensor.dims) < _LEAST_VALUES:
        return False
    readers = [node for node in graph.node if tensor.name in node.input]
    looked_up = all(node.op_type == "Gather" and node.input[0] == tensor.name for node in readers)
    return bool(readers) and looked_up and bool(np.abs(numpy_helper.to_array(tensor)).max() <= _LARGEST)
