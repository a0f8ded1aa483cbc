"""The torch side of the export: write a network with several exits as one ONNX graph with all of them as outputs."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from sdcompress.errors import ParityError, UsageError
from sdcompress.exporting.epsilons import keep_epsilons
from sdcompress.exporting.torchscript_export import torchscript_export
from sdcompress.modalities import Inputs, Modality
from sdcompress.models.inputs import VARYING_AXIS_SIZE
from sdcompress.onnx_graph.edit import strip_metadata
from sdcompress.onnx_graph.gelu import reorder_gelu
from sdcompress.onnx_graph.reshapes import store_reshapes
from sdcompress.onnx_graph.resizes import rewrite_resizes
from sdcompress.onnx_graph.tensorrt8 import DYNAMO_OPSET

__all__ = ["BATCH", "axis_sizes", "export_all_exits", "output_name"]

BATCH = "batch"


def output_name(exit_name: str) -> str:
    """Return the name of the tensor that holds an exit's outputs."""
    return f"{exit_name}_outputs"


def export_all_exits(
    net: nn.Module, exit_names: Sequence[str], modality: Modality, *, opset: int = 18
) -> onnx.ModelProto:
    """Export a network once, with every exit as an output and the named axes of its inputs.

    Args:
        net: the inputs, in the order of ``modality.tensors`` -> E tensors [B, ...], in evaluation mode.
        exit_names: E names; an exit's output is called ``<name>_outputs``.
        modality: names the inputs and their axes.
        opset: version of ONNX's operators, 16 to 23; below 18 by torch's older exporter, with IR version 8.

    Returns:
        A checked model without metadata of this machine.

    Raises:
        UsageError: if torch cannot export the network (to this opset), or it is too large for one ONNX file.
        ParityError: if the exported graph lost the batch axis.
    """
    outputs = [output_name(name) for name in exit_names]
    example = _example(modality)
    _check_size(net)
    _check_statistics(net)
    with _quiet_exporter(), contextlib.ExitStack() as stack:
        stack.enter_context(_products_for_attention(net))
        # also below 18, as a check: it refuses networks that tracing would export wrongly without an error
        newer = max(opset, DYNAMO_OPSET)
        try:
            model = _exported(net, modality, example, outputs, newer)
        except UsageError:
            if not stack.enter_context(_unfused_attention(net)):
                raise
            model = _exported(net, modality, example, outputs, newer)
        if opset < DYNAMO_OPSET:
            model = torchscript_export(net, modality.tensors, example, outputs, opset=opset)
    model = strip_metadata(model)
    store_reshapes(model)
    reorder_gelu(model)
    rewrite_resizes(model)
    _check_axes(model, modality, outputs)
    return model


def axis_sizes(modality: Modality) -> dict[str, int]:
    """Return sizes of the named axes for one sample: those at which costs in torch are counted too."""
    axes = {axis for tensor in modality.tensors for axis in tensor.shape if isinstance(axis, str)}
    return dict.fromkeys(axes, VARYING_AXIS_SIZE) | {BATCH: 1}


def _example(modality: Modality) -> Inputs:
    """Zeros of two rows to trace with: torch.export specialises a batch of 0 or 1 to a constant."""
    inputs = modality.collate(np.stack(list(modality.edge_cases().values())[:2]))
    return Inputs({tensor.name: np.zeros_like(inputs.arrays[tensor.name]) for tensor in modality.tensors})


def _exported(
    net: nn.Module, modality: Modality, example: Inputs, outputs: Sequence[str], opset: int
) -> onnx.ModelProto:
    named = {
        axis: torch.export.Dim(axis) for tensor in modality.tensors for axis in tensor.shape if isinstance(axis, str)
    }
    try:
        program = torch.onnx.export(
            net,
            tuple(torch.from_numpy(array) for array in example.arrays.values()),
            dynamo=True,
            dynamic_shapes=_as_parameters(
                net,
                [
                    {position: named[axis] for position, axis in enumerate(tensor.shape) if isinstance(axis, str)}
                    for tensor in modality.tensors
                ],
            ),
            input_names=[tensor.name for tensor in modality.tensors],
            output_names=outputs,
            opset_version=opset,
            optimize=False,
            external_data=False,
        )
        assert program is not None, "torch.onnx.export with dynamo=True returns a program"
        keep_epsilons(program.model)
        program.optimize()
    except torch.onnx.errors.OnnxExporterError as error:
        raise _not_exportable(error) from error
    return program.model_proto


def _as_parameters(net: nn.Module, shapes: Sequence[dict[int, Any]]) -> tuple[Any, ...]:
    """One entry for each parameter of ``forward``, as torch.export has it: those of ``*further`` are one tuple."""
    kinds = [parameter.kind for parameter in inspect.signature(net.forward).parameters.values()]
    variadic = inspect.Parameter.VAR_POSITIONAL
    named = kinds.index(variadic) if variadic in kinds else len(shapes)
    return (*shapes[:named], tuple(shapes[named:])) if named < len(shapes) else tuple(shapes)


@contextlib.contextmanager
def _unfused_attention(net: nn.Module) -> Iterator[bool]:
    """Compute timm's attention by matrix products and a softmax within the block; yields whether there is any.

    The exporter fails on the layout of the fused operator's result behind some masks and position biases. Training
    keeps the fused operator, which is faster and needs less memory.
    """
    fused = [module for module in net.modules() if getattr(module, "fused_attn", False) is True]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]  # torch types attributes as tensors or modules
    try:
        yield bool(fused)
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]


@contextlib.contextmanager
def _products_for_attention(net: nn.Module) -> Iterator[None]:
    """Compute transformers' attention by matrix products and a softmax within the block.

    The exporter makes more nodes of the fused operator, among them a test for NaN of every weight: 4 % of the time of
    MiniLM at 25 tokens, 8 % at 128 (ONNX Runtime 1.32, one thread of an EPYC).
    """
    fused = {module: module.config._attn_implementation for module in net.modules() if _is_fused(module)}  # type: ignore[union-attr]  # noqa: SLF001 - no public name to read
    try:
        for module in fused:
            module.set_attn_implementation("eager")  # type: ignore[operator]
        yield
    finally:
        for module, implementation in fused.items():
            module.set_attn_implementation(implementation)  # type: ignore[operator]


def _is_fused(module: nn.Module) -> bool:
    config = getattr(module, "config", None)
    return hasattr(module, "set_attn_implementation") and getattr(config, "_attn_implementation", "eager") != "eager"


def _check_size(net: nn.Module) -> None:
    size = sum(tensor.nbytes for tensor in (*net.parameters(), *net.buffers()))
    if size >= 2**31:
        raise UsageError(
            f"The network has {size / 2**30:.1f} GiB of weights.",
            allowed="less than 2 GiB, what one ONNX file can hold",
            next_step="choose a smaller backbone",
        )


def _check_statistics(net: nn.Module) -> None:
    """Refuse batch norm without running statistics, whose rows depend on each other."""
    mixing = [
        f"'{name}' ({type(module).__name__})"
        for name, module in net.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - what all its kinds share
        and module.running_mean is None
    ]
    if mixing:
        raise UsageError(
            f"{', '.join(mixing[:3])} has no running statistics (track_running_stats=False): it normalises by the "
            "batch, so that a sample's outputs depend on the other samples of the batch.",
            allowed="normalisation by running statistics, or of each sample by itself",
            next_step="remove track_running_stats=False, or use GroupNorm or InstanceNorm, and train again",
        )


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's progress on stdout, where commands print their results, and its advice on stderr."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _not_exportable(error: Exception) -> UsageError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    reason = lines[0] if lines else type(cause).__name__
    return UsageError(
        f"torch cannot export this network to ONNX: {reason}",
        allowed="a network that torch.export can trace: no control flow on values, no calls into other libraries",
        next_step="choose another backbone or other exits, or rewrite the code that the message names",
    )


def _check_axes(model: onnx.ModelProto, modality: Modality, outputs: Sequence[str]) -> None:
    """Refuse a graph that lost a named axis of an input, or the batch of an output."""
    expected: dict[str, list[int | str]] = {tensor.name: list(tensor.shape) for tensor in modality.tensors}
    expected |= {name: [BATCH] for name in outputs}
    tensors: list[Any] = [*model.graph.input, *model.graph.output]
    actual = {
        tensor.name: [axis.dim_param or axis.dim_value for axis in tensor.type.tensor_type.shape.dim][
            : len(expected.get(tensor.name, ()))
        ]
        for tensor in tensors
    }
    if actual != expected:
        problems = [name for name, axes in expected.items() if actual.get(name) != axes]
        raise ParityError(
            f"The exported graph has {actual}: {', '.join(problems) or 'another tensor'} is not as expected.",
            allowed=f"{expected}",
            next_step="make the network independent of the batch size: no shape of a batch stored as a number",
        )
