"""Export at opset 16 and 17 by torch's older exporter, for TensorRT 8.5 (opset up to 17, IR version 8).

The newer exporter (``torch.onnx.export(dynamo=True)``) begins at 18, and ONNX's version converter does not lead back:
it leaves attributes of 18 in ReduceMean and has no LayerNormalization before 17. The older one (``dynamo=False``)
traces one run, so it would silently take one side of an ``if`` on values. ``export_all_exits`` therefore runs the newer
one first, which refuses that. The older one also writes no axes of the tensors between nodes, which cutting and
counting need: they are measured here.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from sdcompress.errors import ParityError, UsageError
from sdcompress.modalities import Inputs
from sdcompress.onnx_graph.dataflow import names_read
from sdcompress.onnx_graph.edit import replace_nodes
from sdcompress.onnx_graph.tensor_values import every_tensor
from sdcompress.onnx_graph.tensorrt8 import DYNAMO_OPSET, decompose_instance_norm
from sdcompress.runtime.backends.onnxruntime import ORT_ERRORS
from sdcompress.schema.graphs import Tensor as Spec

__all__ = ["torchscript_export"]

_BATCH = "batch"
_BATCHES = (2, 3)  # not multiples of each other, and not 1, which would look like axes of one element


def torchscript_export(
    net: nn.Module, tensors: Sequence[Spec], example: Inputs, outputs: Sequence[str], *, opset: int
) -> onnx.ModelProto:
    """Return the exported model, with the axes of all its tensors.

    Args:
        net: the inputs -> E tensors [B, ...], in evaluation mode; the newer exporter accepts it.
        tensors: the inputs, of which only the batch may vary.
        example: of two rows, in the order of ``tensors``.
        outputs: names of the E outputs.
        opset: 16 or 17.

    Raises:
        UsageError: if an operator of the network has no form at this opset, or another axis than the batch varies.
        ParityError: if the graph only runs at the batch size of the example.
    """
    if varying := [axis for tensor in tensors for axis in tensor.shape[1:] if isinstance(axis, str)]:
        raise UsageError(
            f"The network's inputs have the axes {', '.join(sorted(set(varying)))}, which vary beside the batch.",
            allowed=f"at opset {opset} inputs of which only the batch varies",
            next_step=f"--opset {DYNAMO_OPSET} or newer (export.opset in the recipe)",
        )
    model = _trace(net, example, outputs, opset)
    if isinstance(model, onnx.ModelProto):
        _inline_identities(model.graph)
        _write_axes(model, example)
        if decompose_instance_norm(model):
            _write_axes(model, example)
        return model
    later = range(opset + 1, DYNAMO_OPSET)
    works = next(
        (new for new in later if isinstance(_trace(net, example, outputs, new), onnx.ModelProto)), DYNAMO_OPSET
    )
    raise UsageError(
        f"torch cannot export this network to opset {opset}: {model}",
        allowed=f"opset {works} or newer, which this network can be exported to",
        next_step=f"--opset {works} (export.opset in the recipe), or another backbone or other heads",
    )


def _trace(net: nn.Module, example: Inputs, outputs: Sequence[str], opset: int) -> onnx.ModelProto | str:
    """The model, or the reason of a failure."""
    modes = [(module, module.training) for module in net.modules()]
    with tempfile.TemporaryDirectory() as folder, _stdout_closed(), _tracked_as_batch_norm(net):
        # it writes to files only
        file = Path(folder, "model.onnx")
        try:
            torch.onnx.export(
                net,
                tuple(torch.from_numpy(array) for array in example.arrays.values()),
                file,
                dynamo=False,
                input_names=list(example.arrays),
                output_names=list(outputs),
                dynamic_axes={name: {0: _BATCH} for name in (*example.arrays, *outputs)},
                opset_version=opset,
            )
        except Exception as error:  # noqa: BLE001 - its own are RuntimeErrors; it also asserts what networks need not have
            return _failure_text(error)
        finally:
            # the exporter sets the mode of the outermost module on all modules
            for module, mode in modes:
                module.training = mode
        return onnx.load(file)


@contextlib.contextmanager
def _stdout_closed() -> Iterator[None]:
    """Drop the output of C++, which prints the whole graph at an unsupported operator."""
    try:
        saved = os.dup(1)
    except OSError:  # a service without a stdout
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


@contextlib.contextmanager
def _tracked_as_batch_norm(net: nn.Module) -> Iterator[None]:
    """Compute InstanceNorm with running statistics as BatchNorm within the block; in evaluation they are equal.

    The older exporter repeats the statistics for every image of a batch, and needs a fixed batch size for that.
    """
    tracked = [
        module
        for module in net.modules()
        if isinstance(module, nn.modules.instancenorm._InstanceNorm)  # noqa: SLF001 - what its three kinds share
        and module.running_mean is not None
        and not module.training
    ]
    for module in tracked:
        module.forward = partial(_as_batch_norm, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in tracked:
            del module.forward


def _as_batch_norm(module: Any, images: Tensor) -> Tensor:
    statistics = (module.running_mean, module.running_var)
    return nn.functional.batch_norm(images, *statistics, module.weight, module.bias, training=False, eps=module.eps)


# Messages of the older exporter about an operator; text behind "Caused by" is cut off before
_OPERATOR_PATTERNS = (
    r"operator '(?P<name>[\w:]+)' to ONNX",
    r"ONNX export of (?:operator )?(?P<name>\w+),? ?(?P<why>.*?)\.?(?: Please .*)?$",
    r"ONNX export failed on (?P<name>[\w:]+), which is not implemented",
)


def _failure_text(error: Exception) -> str:
    lines = [line.strip() for line in str(error).partition("[Caused by")[0].splitlines() if line.strip()]
    if not lines:
        return f"{type(error).__name__}."
    for pattern in _OPERATOR_PATTERNS:
        if match := re.search(pattern, lines[0]):
            reason = match.groupdict().get("why")
            return f"the operator '{match['name']}' has no form there{f': {reason}' if reason else ''}."
    return lines[0][:200] if isinstance(error, RuntimeError) else f"{lines[0][:200]} ({type(error).__name__})"


def _inline_identities(graph: onnx.GraphProto) -> None:
    """Replace Identity nodes on stored weights by the weights, in place: the exporter stores equal weights once.

    TensorRT needs weights as direct inputs, and they are counted where they are stored.
    """
    stored = {tensor.name for tensor in graph.initializer}
    kept_names = {value.name for value in graph.output}
    # nodes of a subgraph are not renamed
    kept_names |= {name for node in graph.node for name in set(names_read(node)) - set(node.input)}
    names: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.input[0] in stored and node.output[0] not in kept_names:
            names[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    replace_nodes(graph, nodes)


def _write_axes(model: onnx.ModelProto, example: Inputs) -> None:
    """Write type and axes of every tensor into the graph, in place, from runs at two batch sizes.

    An axis that grows with the batch is named after it (``batch``, ``64*batch``). ONNX's shape inference does not
    follow the batch through the shape arithmetic of a traced graph.
    """
    small, large = (_run(model, example[np.resize([0, 1], rows)]) for rows in _BATCHES)
    outputs = {value.name for value in model.graph.output}
    del model.graph.value_info[:], model.graph.output[:]
    for name, tensor in small.items():
        shape = [
            _axis(sizes) or f"{name}/{position}"
            for position, sizes in enumerate(zip(tensor.shape, large[name].shape, strict=True))
        ]
        dtype = helper.np_dtype_to_tensor_dtype(tensor.dtype)
        values = model.graph.output if name in outputs else model.graph.value_info
        values.append(helper.make_tensor_value_info(name, dtype, shape))


def _axis(sizes: tuple[int, int]) -> int | str | None:
    """A number, or a multiple of the batch; None if it is neither, or 0, which in ONNX means unknown."""
    if sizes[0] == sizes[1]:
        return sizes[0] or None
    times, remainder = divmod(sizes[0], _BATCHES[0])
    if remainder or times * _BATCHES[1] != sizes[1]:
        return None
    return _BATCH if times == 1 else f"{times}*{_BATCH}"


def _run(model: onnx.ModelProto, inputs: Inputs) -> dict[str, np.ndarray]:
    """Every tensor between nodes by its name."""
    try:
        return every_tensor(model, inputs.arrays)
    except ORT_ERRORS as error:
        raise ParityError(
            f"The exported graph cannot be run with another batch size: {str(error).strip().splitlines()[0][:200]}",
            allowed="a graph for any batch",
            next_step=f"export with --opset {DYNAMO_OPSET}, or make the network independent of the batch size: no "
            "shape of a batch stored as a number",
        ) from error
