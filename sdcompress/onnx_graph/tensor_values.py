"""Run a graph on the CPU and look at the tensors between its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.onnx_graph.edit import copy_model

__all__ = ["every_tensor", "first_not_finite"]

_STORED = {"Constant", "ConstantOfShape"}  # nodes that hold numbers, such as the infinities of a mask


def every_tensor(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every tensor that a node computes, by its name; sequences of tensors are left out.

    Args:
        model: is not modified.
        feed: its inputs.

    Raises:
        Exception: one of ``ORT_ERRORS``.
    """
    probe = copy_model(model)
    ends = [value.name for value in model.graph.output]
    inner = [name for node in model.graph.node for name in node.output if name and name not in ends]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    session = cpu_session(probe.SerializeToString())
    values = session.run(None, dict(feed))
    names = [output.name for output in session.get_outputs()]
    return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}


def first_not_finite(graphs: Mapping[str, bytes], inputs: Mapping[str, np.ndarray]) -> str:
    """Return the first node that computes NaN or infinity from finite inputs, as text; empty if there is none.

    Args:
        graphs: file name -> bytes, in the order of the chain.
        inputs: of the network, by name.
    """
    tensors = dict(inputs)
    for file, data in graphs.items():
        model = onnx.load_from_string(data)
        feed = {value.name: tensors[value.name] for value in model.graph.input}
        known = feed | {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        known |= every_tensor(model, feed)
        for node in model.graph.node:
            if (
                node.op_type not in _STORED
                and any(map(_not_finite, _present(known, node.output)))
                and not any(map(_not_finite, _present(known, node.input)))
            ):
                return f"node '{node.name or node.output[0]}' ({node.op_type}) of {file}"
        tensors |= known
    return ""


def _present(tensors: Mapping[str, np.ndarray], names: Iterable[str]) -> list[np.ndarray]:
    return [tensors[name] for name in names if name in tensors]


def _not_finite(tensor: np.ndarray) -> bool:
    return bool(np.issubdtype(tensor.dtype, np.floating) and not np.isfinite(tensor).all())
