"""OpenVINO: Intel's and Arm's CPUs; often faster than ONNX Runtime, in float32 and in 8 bits (extra: openvino)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdcompress.errors import ArtifactError, SetupError, requires_extra
from sdcompress.runtime.backends._base import Array, Graph
from sdcompress.runtime.backends._interface import check_interface, check_shapes, row_shapes
from sdcompress.schema.manifest import Segment, Tensor


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Let openvino be imported without its telemetry, which sends an event and writes to the home folder right then.

    It takes a package that is missing as a refusal, and has no other switch than a file in the home folder.
    """
    name = "openvino_telemetry"
    if name in sys.modules:  # another part of the program has decided
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # an import of it now fails
    try:
        yield
    finally:
        del sys.modules[name]


with requires_extra("openvino"), _no_telemetry():
    import openvino as ov
    from openvino import frontend

__all__ = ["load"]

# types of tensors, as OpenVINO and as numpy write them
_DTYPES = {"f16": "float16", "f32": "float32", "f64": "float64", "bf16": "bfloat16", "boolean": "bool"}
_DTYPES |= {"i8": "int8", "u8": "uint8", "i32": "int32", "i64": "int64"}

# what the library raises; its own classes have no common base
_ERRORS = (RuntimeError, frontend.GeneralFailure, frontend.OpConversionFailure, frontend.OpValidationFailure)


def load(file: Path, segment: Segment, *, threads: int | None, device: str) -> Graph:
    """Return the callable of a graph; see ``Backend``. It may be called from several threads at once."""
    if device != "cpu":
        raise SetupError(
            f"The backend 'openvino' has no device '{device}'.",
            allowed="cpu",
            next_step="use the device 'cpu', or the backend onnxruntime or tensorrt",
        )
    try:
        reader = frontend.FrontEndManager().load_by_framework("onnx")  # guessing the format would try every parser
        model = reader.convert(reader.load(str(file)))
        compiled = _core().compile_model(model, "CPU", _options(threads))
    except _ERRORS as error:
        raise _failed(f"load {file}", error, "a graph that this version of OpenVINO knows all operators of") from error
    taken, given = _ports(compiled.inputs, segment.inputs), _ports(compiled.outputs, segment.outputs)
    check_interface(file, segment, {p.name: p.kind for p in taken}, {p.name: p.kind for p in given})
    places = {port.name: port.place for port in taken}
    by_name = {port.name: port.place for port in given}
    outputs, shapes = [by_name[tensor.name] for tensor in segment.outputs], row_shapes(segment)
    idle: list[Any] = []  # requests; each holds the buffers of one call at a time

    def graph(tensors: dict[str, Array]) -> list[Array]:
        try:
            request = idle.pop()
        except IndexError:  # asking first would let another thread take the last one
            request = compiled.create_infer_request()
        shared = {name: _writable(array) for name, array in tensors.items()}  # a request keeps no array alive
        try:
            for name, array in shared.items():
                request.set_input_tensor(places[name], ov.Tensor(array, shared_memory=True))
            request.infer()
            arrays = [request.get_output_tensor(place).data.copy() for place in outputs]
        except _ERRORS as error:
            raise _failed(f"run {file}", error, "a graph that computes all of its outputs for any batch") from error
        idle.append(request)
        check_shapes(file, shapes, arrays, len(next(iter(tensors.values()))))
        return arrays

    return graph


@cache
def _core() -> Any:
    return ov.Core()


def _options(threads: int | None) -> dict[str, Any]:
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # by default it rounds float32 graphs to bfloat16 where the CPU has it
        "ENABLE_CPU_PINNING": False,  # the process decides on which cores it runs
    }
    return options if threads is None else {**options, "INFERENCE_NUM_THREADS": threads}


class _Port(NamedTuple):
    """One input or output of a compiled graph: its name, its place in the order, its type and shape."""

    name: str
    place: int
    kind: tuple[str, list[int | None]]


def _ports(ports: Sequence[Any], listed: Sequence[Tensor]) -> list[_Port]:
    """Return the ports; of the names that one tensor has, those that are listed, or the first if none is."""
    result: list[_Port] = []
    names = {tensor.name for tensor in listed}
    for place, port in enumerate(ports):
        dtype, own = port.element_type.get_type_name(), sorted(port.get_names())
        axes = [axis.get_length() if axis.is_static else None for axis in port.partial_shape]
        kind = (_DTYPES.get(dtype, dtype), axes)
        result += [_Port(name, place, kind) for name in [name for name in own if name in names] or own[:1] or [""]]
    return result


def _writable(array: Array) -> Array:
    return array if array.flags.writeable else np.array(array)  # the library shares no other memory


def _failed(what: str, error: Exception, allowed: str) -> ArtifactError:
    lines = [line.strip() for line in str(error).splitlines()]
    reason = "; ".join(line for line in lines if line and not line.startswith(("Exception from", "Check '")))
    return ArtifactError(
        f"OpenVINO {ov.__version__.partition('-')[0]} cannot {what}: {reason or type(error).__name__}",
        allowed=allowed,
        next_step="upgrade openvino, or use the backend onnxruntime",
    )
