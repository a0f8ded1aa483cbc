"""Check a plan against its graph: inputs and outputs, precision of its layers, memory. Needs the GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sdcompress.errors import VerificationError
from sdcompress.schema.graphs import Precision, Segment, Tensor
from sdcompress.tensorrt.building.hardware import tensor_shape
from sdcompress.tensorrt.nvidia.context import scratch_bytes
from sdcompress.tensorrt.nvidia.inspector import UNKNOWN, layer_types, lower_problem, missing_problem
from sdcompress.tensorrt.nvidia.log import Log, create, require
from sdcompress.tensorrt.nvidia.trt import TensorRT, dtype_name, make_runtime

if TYPE_CHECKING:
    import tensorrt

__all__ = ["PlanFacts", "border_problem", "check_plan", "check_precision"]

_NEXT_STEP = "use TensorRT 10 or 11, which keep a graph's own types, or an fp32 artifact"


@dataclass(frozen=True)
class PlanFacts:
    """Facts about a plan that passed.

    Attributes:
        device_memory_bytes: scratch of one execution context.
        layers: data type -> number of layers.
        unknown: whether the inspector gave no types.
    """

    device_memory_bytes: int
    layers: dict[str, int]
    unknown: bool


def check_plan(
    trt: TensorRT, log: Log, plan: bytes, segment: Segment, *, batch: int, version_compatible: bool, file: str
) -> PlanFacts:
    """Load a plan and compare it with the segment that it was built from.

    Args:
        trt: from ``nvidia.trt.load``.
        log: receives the reason of a failure.
        plan: its bytes, just built.
        segment: the graph's entry in the manifest.
        batch: that the first profile is tuned for; layer types are reported for it.
        version_compatible: whether the plan was built as version-compatible.
        file: the plan's name, for messages.

    Raises:
        SetupError: if it cannot be loaded.
        VerificationError: if its inputs or outputs are not its graph's, or a layer has a lower precision.
    """
    runtime = make_runtime(trt, log, version_compatible=version_compatible)
    engine = create(lambda: runtime.deserialize_cuda_engine(plan), log, f"an engine of '{file}'")
    if problem := border_problem(segment, _border(trt, engine)):
        raise VerificationError(
            f"'{file}' {problem}.",
            allowed="the inputs and outputs of its graph, int64 as int32 where TensorRT has no int64",
            next_step="report it with the build log",
        )
    layers = layer_types(_report(trt, log, engine, segment, batch))
    if problem := lower_problem(segment.precision, layers):
        raise VerificationError(
            f"'{file}' does not have the precision of its graph: {problem}.",
            allowed=f"layers of the precision of its graph: {segment.precision}",
            next_step=_NEXT_STEP,
        )
    return PlanFacts(scratch_bytes(engine), layers, unknown=set(layers) <= {UNKNOWN})


def check_precision(plans: Sequence[tuple[Precision, PlanFacts]], *, typed: bool) -> None:
    """Check that each requested precision occurs in the plans of an artifact.

    Args:
        plans: the precision of each graph, and the facts of its plan.
        typed: whether the networks were strongly typed.

    Raises:
        VerificationError: if no layer has it, and the network was not strongly typed.
    """
    for requested in sorted({precision for precision, _ in plans}):
        layers: Counter[str] = Counter()
        for precision, checked in plans:
            if precision == requested:
                layers.update(checked.layers)
        if problem := missing_problem(requested, layers, typed=typed):
            raise VerificationError(
                f"The engines do not have the precision of their graphs: {problem}.",
                allowed=f"layers of the precision of their graphs: {requested}",
                next_step=_NEXT_STEP,
            )


def border_problem(segment: Segment, tensors: Sequence[tuple[Tensor, bool]]) -> str | None:
    """Return how a plan's inputs and outputs differ from its graph's; None if they are equal.

    Args:
        segment: the graph's.
        tensors: each tensor of the plan, and whether it is an input. Shapes are not compared: the parser took them
            from the graph.
    """
    for kind, listed, inputs in (("inputs", segment.inputs, True), ("outputs", segment.outputs, False)):
        actual = {tensor.name: tensor.dtype for tensor, is_input in tensors if is_input == inputs}
        allowed = {tensor.name: {tensor.dtype, tensor.dtype.replace("int64", "int32")} for tensor in listed}
        if actual.keys() != allowed.keys() or any(actual[name] not in dtypes for name, dtypes in allowed.items()):
            expected = {tensor.name: tensor.dtype for tensor in listed}
            return f"has the {kind} {actual}, its graph has {expected}"
    return None


def _border(trt: TensorRT, engine: tensorrt.ICudaEngine) -> list[tuple[Tensor, bool]]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return [
        (
            Tensor.model_validate({"name": name, "dtype": dtype_name(trt, engine.get_tensor_dtype(name)), "shape": ()}),
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
        )
        for name in names
    ]


def _report(trt: TensorRT, log: Log, engine: tensorrt.ICudaEngine, segment: Segment, batch: int) -> str:
    """The inspector's JSON at one batch; types that depend on shapes need a context with shapes set."""
    inspector = engine.create_engine_inspector()
    context = create(engine.create_execution_context, log, f"an execution context of '{segment.file}'")
    for tensor in segment.inputs:
        shape = tensor_shape(tensor, batch)
        require(partial(context.set_input_shape, tensor.name, shape), log, f"take '{tensor.name}' as {list(shape)}")
    inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
