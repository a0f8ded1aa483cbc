"""What a plan is, held against what was asked for: its border, its layers' types, its memory. Needs the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdcompress.errors import VerificationError
from sdcompress.nvidia.inspector import UNKNOWN, layer_types, precision_problem
from sdcompress.nvidia.log import created
from sdcompress.nvidia.trt import TensorRT, dtype_name, is_typed, make_runtime
from sdcompress.schema.graphs import Segment, Tensor

if TYPE_CHECKING:
    import tensorrt

    from sdcompress.nvidia._api import Logger

__all__ = ["Checked", "border_problem", "check_plan"]


@dataclass(frozen=True)
class Checked:
    """What there is to say of a plan that is right.

    Attributes:
        device_memory_bytes: scratch of one execution context.
        layers: data type -> number of layers.
        unknown: whether the inspector said nothing of their types.
    """

    device_memory_bytes: int
    layers: dict[str, int]
    unknown: bool


def check_plan(
    trt: TensorRT, log: Logger, plan: bytes, segment: Segment, *, version_compatible: bool, file: str
) -> Checked:
    """Load a plan and compare it with the segment that it was built from.

    Args:
        trt: from ``nvidia.trt.load``.
        log: from ``nvidia.trt.make_logger``.
        plan: its bytes, built a moment ago.
        segment: what the manifest says of the graph.
        version_compatible: whether it was built so.
        file: the plan's name, for messages.

    Raises:
        SetupError: if it cannot be loaded.
        VerificationError: if its inputs, outputs or layers are not what was asked for.
    """
    runtime = make_runtime(trt, log, version_compatible=version_compatible)
    engine = created(lambda: runtime.deserialize_cuda_engine(plan), log, f"an engine of '{file}'")
    if problem := border_problem(segment, _border(trt, engine)):
        raise VerificationError(
            f"'{file}' {problem}.",
            allowed="the inputs and outputs of its graph, int64 as int32 where TensorRT has no int64",
            next_step="report it with the build log",
        )
    inspector = engine.create_engine_inspector()
    layers = layer_types(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    if problem := precision_problem(segment.precision, layers, typed=is_typed(trt)):
        raise VerificationError(
            f"'{file}' is not what was asked for: {problem}.",
            allowed=f"layers of the precision of its graph: {segment.precision}",
            next_step="use TensorRT 10 or 11, which keep a graph's own types, or an fp32 artifact",
        )
    return Checked(_memory(engine), layers, unknown=set(layers) <= {UNKNOWN})


def border_problem(segment: Segment, found: Sequence[tuple[Tensor, bool]]) -> str | None:
    """How a plan's inputs and outputs differ from its graph's; None if they do not.

    Args:
        segment: the graph's.
        found: each tensor of the plan, and whether it is an input. Shapes are not compared: the parser took them from
            the graph.
    """
    for what, listed, inputs in (("inputs", segment.inputs, True), ("outputs", segment.outputs, False)):
        given = {tensor.name: tensor.dtype for tensor, is_input in found if is_input == inputs}
        allowed = {tensor.name: {tensor.dtype, tensor.dtype.replace("int64", "int32")} for tensor in listed}
        if given.keys() != allowed.keys() or any(given[name] not in dtypes for name, dtypes in allowed.items()):
            expected = {tensor.name: tensor.dtype for tensor in listed}
            return f"has the {what} {given}, its graph has {expected}"
    return None


def _border(trt: TensorRT, engine: tensorrt.ICudaEngine) -> list[tuple[Tensor, bool]]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return [
        (
            Tensor(name=name, dtype=dtype_name(trt, engine.get_tensor_dtype(name)), shape=()),
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
        )
        for name in names
    ]


def _memory(engine: tensorrt.ICudaEngine) -> int:
    size = getattr(engine, "device_memory_size_v2", None)  # from 10.1; the older name is gone in 11
    return int(getattr(engine, "device_memory_size", 0) if size is None else size)
