"""What a plan is, held against what was asked for: its border, its layers' types, its memory. Needs the GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sdcompress.errors import VerificationError
from sdcompress.schema.graphs import Precision, Segment, Tensor
from sdcompress.tensorrt.building.memory import tensor_shape
from sdcompress.tensorrt.nvidia.context import scratch_bytes
from sdcompress.tensorrt.nvidia.inspector import UNKNOWN, layer_types, lower_problem, missing_problem
from sdcompress.tensorrt.nvidia.log import Log, created, must
from sdcompress.tensorrt.nvidia.trt import TensorRT, dtype_name, make_runtime

if TYPE_CHECKING:
    import tensorrt

__all__ = ["Checked", "border_problem", "check_plan", "check_precision"]

_NEXT = "use TensorRT 10 or 11, which keep a graph's own types, or an fp32 artifact"


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
    trt: TensorRT, log: Log, plan: bytes, segment: Segment, *, batch: int, version_compatible: bool, file: str
) -> Checked:
    """Load a plan and compare it with the segment that it was built from.

    Args:
        trt: from ``nvidia.trt.load``.
        log: hears why, where it cannot be loaded.
        plan: its bytes, built a moment ago.
        segment: what the manifest says of the graph.
        batch: that the first profile is tuned for; what layers compute in is asked for it.
        version_compatible: whether it was built so.
        file: the plan's name, for messages.

    Raises:
        SetupError: if it cannot be loaded.
        VerificationError: if its inputs or outputs are not its graph's, or a layer gives less than was asked for.
    """
    runtime = make_runtime(trt, log, version_compatible=version_compatible)
    engine = created(lambda: runtime.deserialize_cuda_engine(plan), log, f"an engine of '{file}'")
    if problem := border_problem(segment, _border(trt, engine)):
        raise VerificationError(
            f"'{file}' {problem}.",
            allowed="the inputs and outputs of its graph, int64 as int32 where TensorRT has no int64",
            next_step="report it with the build log",
        )
    layers = layer_types(_report(trt, log, engine, segment, batch))
    if problem := lower_problem(segment.precision, layers):
        raise VerificationError(
            f"'{file}' is not what was asked for: {problem}.",
            allowed=f"layers of the precision of its graph: {segment.precision}",
            next_step=_NEXT,
        )
    return Checked(scratch_bytes(engine), layers, unknown=set(layers) <= {UNKNOWN})


def check_precision(plans: Sequence[tuple[Precision, Checked]], *, typed: bool) -> None:
    """Look for each precision that was asked for in all plans of an artifact together.

    Args:
        plans: the precision of each graph, and what its plan is.
        typed: whether the networks were strongly typed.

    Raises:
        VerificationError: if no layer of them gives it, and nothing else binds TensorRT.
    """
    for asked in sorted({precision for precision, _ in plans}):
        layers: Counter[str] = Counter()
        for precision, checked in plans:
            if precision == asked:
                layers.update(checked.layers)
        if problem := missing_problem(asked, layers, typed=typed):
            raise VerificationError(
                f"The engines are not what was asked for: {problem}.",
                allowed=f"layers of the precision of their graphs: {asked}",
                next_step=_NEXT,
            )


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


def _report(trt: TensorRT, log: Log, engine: tensorrt.ICudaEngine, segment: Segment, batch: int) -> str:
    """The inspector's JSON at one batch: it shows no type that depends on shapes before a context has them set."""
    inspector = engine.create_engine_inspector()
    context = created(engine.create_execution_context, log, f"an execution context of '{segment.file}'")
    for tensor in segment.inputs:
        shape = tensor_shape(tensor, batch)
        must(partial(context.set_input_shape, tensor.name, shape), log, f"take '{tensor.name}' as {list(shape)}")
    inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
