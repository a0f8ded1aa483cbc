"""A segment without its signals, ready to be rewritten, and put together again."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import TensorProto
from onnxruntime.quantization.shape_inference import quant_pre_process

from sdcompress.artifact.read import Artifact
from sdcompress.errors import UsageError
from sdcompress.onnx_graph.dataflow import Flow
from sdcompress.onnx_graph.exit_signals import add_signals
from sdcompress.onnx_graph.strip_metadata import tidy
from sdcompress.quantizing.precisions._base import PRODUCTS
from sdcompress.schema.manifest import ExitSignals, Segment
from sdcompress.tasks import Task

__all__ = ["count_products", "load", "plain", "tail", "with_signals"]

_STANDARD = {"", "ai.onnx"}
_TYPED = {"fp16", "bf16"}


def load(artifact: Artifact, segment: Segment) -> onnx.ModelProto:
    """The graph of a segment.

    Raises:
        UsageError: if it is in a lower precision already, or has more in it than plain operators of ONNX.
    """
    if segment.precision != "fp32":
        raise UsageError(
            f"'{segment.file}' of '{artifact.path}' is in {segment.precision} already.",
            allowed="an artifact in fp32",
            next_step=f"quantise the artifact that it was made from (digest {artifact.manifest.provenance.parent})",
        )
    model = onnx.load(artifact.file(segment), load_external_data=False)
    strange = sorted({f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in _STANDARD})
    strange += sorted({node.op_type for node in model.graph.node if any(a.HasField("g") for a in node.attribute)})
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        strange.append("weights in a file of their own")
    if strange:
        raise UsageError(
            f"'{segment.file}' of '{artifact.path}' holds {', '.join(strange)}.",
            allowed="operators of ONNX itself, without subgraphs, with the weights in the file",
            next_step="export the checkpoint again with 'sdcompress export' and quantise that",
        )
    return model


def plain(model: onnx.ModelProto, signals: Collection[ExitSignals]) -> onnx.ModelProto:
    """A copy without the signals of exits, with batch norm folded into convolutions and all shapes inferred.

    Args:
        model: the segment.
        signals: names of the outputs to leave out, with what computes only them.
    """
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    unwanted = {name for names in signals for name in (names.values, names.decision)}
    outputs = [value for value in kept.graph.output if value.name not in unwanted]
    needed = Flow(kept).ancestors([value.name for value in outputs])
    nodes = [node for index, node in enumerate(kept.graph.node) if index in needed]
    used = {name for node in nodes for name in node.input}
    stored = [tensor for tensor in kept.graph.initializer if tensor.name in used]
    del kept.graph.node[:], kept.graph.output[:], kept.graph.initializer[:], kept.graph.value_info[:]
    kept.graph.node.extend(nodes)
    kept.graph.output.extend(outputs)
    kept.graph.initializer.extend(stored)
    with tempfile.TemporaryDirectory(prefix="sdcompress-") as folder:
        given, out = Path(folder) / "given.onnx", Path(folder) / "plain.onnx"
        onnx.save(kept, given)
        quant_pre_process(str(given), str(out), skip_symbolic_shape=True)  # that needs sympy, and nothing of ours does
        return onnx.load(out)


def tail(model: onnx.ModelProto, logits: Collection[str]) -> frozenset[str]:
    """The tensors from the last products with stored weights on to the logits; see ``FloatSegment``."""
    makers = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name for tensor in model.graph.initializer}
    found: set[str] = set()
    waiting = [name for name in logits if name in makers]
    while waiting:
        node = makers[waiting.pop()]
        if found & set(node.output):
            continue
        found.update(node.output)
        if not (node.op_type in PRODUCTS and stored & set(node.input[:2])):
            waiting += [name for name in node.input if name in makers]
    return frozenset(found)


def with_signals(
    model: onnx.ModelProto,
    old: onnx.ModelProto,
    signals: Collection[tuple[str, str, ExitSignals]],
    task: Task,
    *,
    batch: str,
) -> onnx.ModelProto:
    """The rewritten segment as it is stored: signals appended in float32, outputs in their order, no notes in it.

    Args:
        model: what a precision has made of ``plain``.
        old: the segment in float32.
        signals: exit, name of its logits, names of its signals.
        task: what the logits mean.
        batch: name of the batch axis.
    """
    made = tidy(model)
    made.producer_name, made.producer_version = old.producer_name, old.producer_version
    made.graph.name = old.graph.name
    used = {name for node in made.graph.node for name in node.input}
    stored = [tensor for tensor in made.graph.initializer if tensor.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(stored)
    for exit_, logits, _ in signals:
        made, _ = add_signals(made, exit_, logits, task, batch=batch)
    for values in ("input", "output"):
        ports = getattr(made.graph, values)
        del ports[:]
        ports.extend(getattr(old.graph, values))
    onnx.checker.check_model(made, full_check=True)
    return made


def count_products(model: onnx.ModelProto, precision: str) -> tuple[int, int]:
    """How many convolutions and products compute in a precision, and how many do not.

    Args:
        model: what a precision has made.
        precision: fp16 and bf16 are types of what is read; of all others it is read from a DequantizeLinear.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    found = [node for node in graph.node if node.op_type in PRODUCTS]
    narrow = sum(
        all(types.get(name, TensorProto.FLOAT) != TensorProto.FLOAT for name in node.input[:2])
        if precision in _TYPED
        else set(node.input[:2]) <= dequantised
        for node in found
    )
    return narrow, len(found) - narrow
