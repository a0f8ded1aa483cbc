"""Prepare a segment for a precision, and add its signals again afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import TensorProto
from onnxruntime.quantization.shape_inference import quant_pre_process

from sdcompress.artifact.read import Artifact
from sdcompress.errors import UsageError
from sdcompress.onnx_graph.edit import copy_model, drop_unused, drop_unused_initializers, strip_metadata
from sdcompress.onnx_graph.exit_signals import add_signals
from sdcompress.quantizing.precisions._base import is_product
from sdcompress.schema.manifest import ExitSignals, Segment
from sdcompress.tasks import Task

__all__ = ["count_products", "load_segment", "output_layers", "with_signals", "without_signals"]

_STANDARD = {"", "ai.onnx"}
_TYPED = {"fp16", "bf16"}


def load_segment(artifact: Artifact, segment: Segment) -> onnx.ModelProto:
    """Return the graph of a segment.

    Raises:
        UsageError: if it is in a lower precision already, or holds more than operators of ONNX.
    """
    if segment.precision != "fp32":
        raise UsageError(
            f"'{segment.file}' of '{artifact.path}' is in {segment.precision} already.",
            allowed="an artifact in fp32",
            next_step=f"quantise the artifact that it was made from (digest {artifact.manifest.provenance.parent})",
        )
    model = onnx.load(artifact.file(segment), load_external_data=False)
    unsupported = sorted({f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in _STANDARD})
    unsupported += sorted({node.op_type for node in model.graph.node if any(a.HasField("g") for a in node.attribute)})
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        unsupported.append("weights in a separate file")
    if unsupported:
        raise UsageError(
            f"'{segment.file}' of '{artifact.path}' holds {', '.join(unsupported)}.",
            allowed="operators of ONNX itself, without subgraphs, with the weights in the file",
            next_step="export the checkpoint again with 'sdcompress export' and quantise that",
        )
    return model


def without_signals(model: onnx.ModelProto, signals: Collection[ExitSignals]) -> onnx.ModelProto:
    """Return a copy without the signals of exits, with batch norm folded into convolutions and all shapes inferred.

    Args:
        model: the segment.
        signals: names of the outputs to drop, with the nodes that only they depend on.
    """
    stripped = copy_model(model)
    dropped = {name for names in signals for name in (names.values, names.decision)}
    outputs = [value for value in stripped.graph.output if value.name not in dropped]
    del stripped.graph.output[:], stripped.graph.value_info[:]
    stripped.graph.output.extend(outputs)
    drop_unused(stripped.graph)
    with tempfile.TemporaryDirectory(prefix="sdcompress-") as folder:
        source, out = Path(folder) / "segment.onnx", Path(folder) / "prepared.onnx"
        onnx.save(stripped, source)
        quant_pre_process(str(source), str(out), skip_symbolic_shape=True)  # symbolic shapes would need sympy
        return onnx.load(out)


def output_layers(model: onnx.ModelProto, logits: Collection[str]) -> frozenset[str]:
    """Return the tensors from the last products with stored weights to the logits; see ``FloatSegment``."""
    producers = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name for tensor in model.graph.initializer}
    tensors: set[str] = set()
    pending = [name for name in logits if name in producers]
    while pending:
        node = producers[pending.pop()]
        if tensors & set(node.output):
            continue
        tensors.update(node.output)
        if not (is_product(node) and stored & set(node.input[:2])):
            pending += [name for name in node.input if name in producers]
    return frozenset(tensors)


def with_signals(
    model: onnx.ModelProto,
    float32: onnx.ModelProto,
    signals: Collection[tuple[str, str, ExitSignals]],
    task: Task,
    *,
    batch: str,
) -> onnx.ModelProto:
    """Return the rewritten segment as it is stored: with signals in float32, outputs in their order, without metadata.

    Args:
        model: what a precision returned for ``without_signals``.
        float32: the segment in float32.
        signals: exit, name of its logits, names of its signals.
        task: what the logits mean.
        batch: name of the batch axis.
    """
    rewritten = strip_metadata(model)
    rewritten.producer_name, rewritten.producer_version = float32.producer_name, float32.producer_version
    rewritten.graph.name = float32.graph.name
    drop_unused_initializers(rewritten.graph)
    for exit_, logits, _ in signals:
        rewritten, _ = add_signals(rewritten, exit_, logits, task, batch=batch)
    for field in ("input", "output"):
        values = getattr(rewritten.graph, field)
        del values[:]
        values.extend(getattr(float32.graph, field))
    onnx.checker.check_model(rewritten, full_check=True)
    return rewritten


def count_products(model: onnx.ModelProto, precision: str) -> tuple[int, int]:
    """Return how many convolutions and products compute in a precision, and how many do not.

    Args:
        model: what a precision returned.
        precision: a product counts for fp16 and bf16 if its inputs have a lower type, for all others if they come from
            a DequantizeLinear.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    products = [node for node in graph.node if is_product(node)]
    low = sum(
        all(types.get(name, TensorProto.FLOAT) != TensorProto.FLOAT for name in node.input[:2])
        if precision in _TYPED
        else set(node.input[:2]) <= dequantised
        for node in products
    )
    return low, len(products) - low
