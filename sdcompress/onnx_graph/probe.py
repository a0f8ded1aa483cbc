"""Look at the tensors between a graph's nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

__all__ = ["every_tensor", "first_not_finite"]


def every_tensor(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor that a node makes, by its name; sequences of tensors are left out.

    Args:
        model: left as it is.
        feed: its inputs.

    Raises:
        Exception: what ONNX Runtime raises, see ``chain.FAILURES``.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    ends = [value.name for value in model.graph.output]
    inner = [name for node in model.graph.node for name in node.output if name and name not in ends]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, dict(feed))
    names = [port.name for port in session.get_outputs()]
    return {name: value for name, value in zip(names, found, strict=True) if isinstance(value, np.ndarray)}


def first_not_finite(graphs: Mapping[str, bytes], network_input: str, inputs: np.ndarray) -> str:
    """The first node that makes NaN or infinity of finite numbers, in words; empty if there is none.

    Args:
        graphs: file name -> bytes, in the order of the chain.
        network_input: name of the network's input.
        inputs: float32 [B, C, H, W].
    """
    tensors = {network_input: inputs}
    for file, data in graphs.items():
        model = onnx.load_from_string(data)
        feed = {value.name: tensors[value.name] for value in model.graph.input}
        here = feed | {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        here |= every_tensor(model, feed)
        for node in model.graph.node:
            if any(map(_broken, _of(here, node.output))) and not any(map(_broken, _of(here, node.input))):
                return f"node '{node.name or node.output[0]}' ({node.op_type}) of {file}"
        tensors |= here
    return ""


def _of(tensors: Mapping[str, np.ndarray], names: Iterable[str]) -> list[np.ndarray]:
    return [tensors[name] for name in names if name in tensors]


def _broken(tensor: np.ndarray) -> bool:
    return bool(np.issubdtype(tensor.dtype, np.floating) and not np.isfinite(tensor).all())
