"""Take out of the biases of convolutions what rounding the weights adds to their outputs on average.

Rounded weights W' shift the mean of an output channel by (W' - W) times the means of the input channels, which a
depthwise network sums up from layer to layer. Source: Nagel et al. 2019, Data-Free Quantization Through Weight
Equalization and Bias Correction, section 4.2, with means that are measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.cpu_session import cpu_session
from sdcompress.onnx_graph.edit import copy_model
from sdcompress.quantizing.precisions._base import Feed

__all__ = ["correct_biases"]

Array = npt.NDArray[np.float32]
_MEAN = "/channel-means"


def correct_biases(quantized: onnx.ModelProto, model: onnx.ModelProto, feeds: Iterable[Feed], *, threads: int) -> None:
    """Correct the stored biases of the convolutions whose weights are codes, in place.

    Args:
        quantized: with a DequantizeLinear behind the codes of each weight.
        model: the same in float32, its nodes by the same names.
        feeds: inputs of it, batch by batch, the batch axis first; at least one sample.
        threads: of ONNX Runtime; 0 leaves the choice to it.
    """
    rounded, exact = _convolutions(quantized.graph), _convolutions(model.graph)
    weights, biases = _dequantized(quantized.graph), _stored(quantized.graph)
    floats = _stored(model.graph)
    chosen = [
        name
        for name, node in rounded.items()
        if node.input[1] in weights and node.input[2] in biases and name in exact and exact[name].input[1] in floats
    ]
    means = _channel_means(model, sorted({exact[name].input[0] for name in chosen}), feeds, threads)
    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    readers = Counter(name for node in quantized.graph.node for name in node.input)
    for name in chosen:
        bias = rounded[name].input[2]
        error = weights[rounded[name].input[1]] - floats[exact[name].input[1]]
        shift = _shift(error.reshape(*error.shape[:2], -1).sum(axis=2), means[exact[name].input[0]])
        if not np.isfinite(shift).all():
            continue
        tensor = tensors[bias]
        if readers[bias] > 1:  # the last of its readers keeps the name
            readers[bias] -= 1
            tensor = quantized.graph.initializer.add(name=f"{bias}/{name}")
            rounded[name].input[2] = tensor.name
        tensor.CopyFrom(numpy_helper.from_array((biases[bias] - shift).astype(np.float32), tensor.name))


def _convolutions(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in graph.node if node.op_type == "Conv" and len(node.input) > 2}


def _stored(graph: onnx.GraphProto) -> dict[str, Array]:
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }


def _dequantized(graph: onnx.GraphProto) -> dict[str, Array]:
    """Return the weights that codes with one scale for each output channel mean, by the tensor that holds them."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    weights = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and stored.keys() >= {*node.input[:2]}:
            codes, scales = (numpy_helper.to_array(stored[name]).astype(np.float32) for name in node.input[:2])
            if codes.ndim > 2 and scales.shape == codes.shape[:1]:
                weights[node.output[0]] = codes * scales.reshape(-1, *[1] * (codes.ndim - 1))
    return weights


def _channel_means(
    model: onnx.ModelProto, names: list[str], feeds: Iterable[Feed], threads: int
) -> Mapping[str, Array]:
    """Return the mean of each channel of tensors [B, C, ...] over all samples and places, [C]."""
    if not names:
        return {}
    extended = copy_model(model)
    for name in names:
        extended.graph.node.append(helper.make_node("GlobalAveragePool", [name], [f"{name}{_MEAN}"]))
        extended.graph.output.append(helper.make_tensor_value_info(f"{name}{_MEAN}", TensorProto.FLOAT, None))
    session = cpu_session(extended.SerializeToString(), threads=threads)
    sums, samples = dict[str, npt.NDArray[np.float64]](), 0
    for feed in feeds:
        samples += len(next(iter(feed.values())))
        for name, values in zip(names, session.run([f"{name}{_MEAN}" for name in names], feed), strict=True):
            total = values.reshape(*values.shape[:2]).sum(axis=0, dtype=np.float64)
            sums[name] = sums[name] + total if name in sums else total
    return {name: (total / samples).astype(np.float32) for name, total in sums.items()}


def _shift(error: Array, means: Array) -> Array:
    """Return the mean shift of each output channel, [O].

    Padding counts as if it had the mean of its channel.

    Args:
        error: of the weights, summed over the kernel, [O, I / groups].
        means: of the input channels, [I].
    """
    groups = len(means) // error.shape[1]
    by_group = error.reshape(groups, -1, error.shape[1])
    return np.asarray(np.einsum("goi,gi->go", by_group, means.reshape(groups, -1)).reshape(-1))
