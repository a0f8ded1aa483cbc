"""ONNX Runtime: CPU, or CUDA with the package onnxruntime-gpu; all graph optimisations."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from sdcompress.errors import ArtifactError, DeviceError, SetupError
from sdcompress.runtime.backends._base import Array, Graph
from sdcompress.runtime.backends._interface import Ports, check_interface, check_shapes, row_shapes
from sdcompress.schema.manifest import Segment

__all__ = ["load"]

_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}

# types of tensors, as ONNX Runtime and as numpy write them
_DTYPES = {f"tensor({name})": name for name in ("float16", "bool", "int8", "uint8", "int32", "int64")}
_DTYPES |= {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(bfloat16)": "bfloat16"}

# what a session raises; these have no common base but RuntimeError and Exception
ORT_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


# what the messages of failing devices hold; their codes are those of graphs that cannot compute their inputs
_DEVICE_FAILS = (
    *("failed to allocate", "out of memory", "bad allocation", "bad_alloc"),
    *("cuda failure", "cuda error", "cudnn", "cublas", "cufft", "curand"),
)


def load(file: Path, segment: Segment, *, threads: int | None, device: str) -> Graph:
    """Return the callable of a graph; see ``Backend``. It may be called from several threads at once."""
    providers = _providers(device)
    try:
        session = ort.InferenceSession(file, _options(threads), providers=providers)
    except ORT_ERRORS as error:
        raise _failed(
            f"load {file}", error, "a graph that this version of ONNX Runtime knows all operators and the opset of"
        ) from error
    if providers[0] not in session.get_providers():  # ONNX Runtime falls back without an error
        raise _no_device(device, f"{providers[0]} could not be started; its CUDA or cuDNN libraries do not load.")
    check_interface(file, segment, _ports(session.get_inputs()), _ports(session.get_outputs()))
    outputs, shapes = [tensor.name for tensor in segment.outputs], row_shapes(segment)

    def graph(tensors: dict[str, Array]) -> list[Array]:
        try:
            arrays: list[Array] = session.run(outputs, tensors)
        except ORT_ERRORS as error:
            raise _failed_run(file, error) from error
        except MemoryError as error:
            raise _device_failed(file, "it has too little memory") from error
        check_shapes(file, shapes, arrays, len(next(iter(tensors.values()))))
        return arrays

    return graph


def _failed(what: str, error: Exception, allowed: str) -> ArtifactError:
    return ArtifactError(
        f"ONNX Runtime {ort.__version__} cannot {what}: {str(error).strip().partition(chr(10))[0]}",
        allowed=allowed,
        next_step="upgrade onnxruntime, or export again; where an operator is not known, with a lower export.opset",
    )


def _failed_run(file: Path, error: Exception) -> ArtifactError | DeviceError:
    message = str(error)
    if any(words in message.lower() for words in _DEVICE_FAILS):
        return _device_failed(file, " ".join(message.split()))
    return _failed(f"run {file}", error, "a graph that computes all of its outputs for any batch")


def _device_failed(file: Path, why: str) -> DeviceError:
    return DeviceError(
        f"The device failed while ONNX Runtime {ort.__version__} ran {file}: {why}",
        allowed="a device that works and has memory for the batch",
        next_step="use smaller batches, free memory of the device, or restart the process",
    )


def _providers(device: str) -> list[str]:
    providers = _PROVIDERS.get(device)
    if providers is None:
        raise _no_device(device, f"ONNX Runtime has no device '{device}' here.")
    if providers[0] not in ort.get_available_providers():
        raise _no_device(device, f"This onnxruntime has no {providers[0]}.")
    if device == "cuda":
        _load_cuda()
    return providers


def _load_cuda() -> None:
    """Load the CUDA libraries of pip's packages, which the system's loader does not look for."""
    preload = getattr(ort, "preload_dlls", None)  # from 1.21
    if preload is not None:
        with redirect_stdout(None):  # it prints what it does not find; the session tells whether that was needed
            preload()


def _no_device(device: str, problem: str) -> SetupError:
    usable = [name for name, (first, *_) in _PROVIDERS.items() if first in ort.get_available_providers()]
    steps = {
        "cuda": "pip install 'onnxruntime-gpu[cuda,cudnn]' instead of onnxruntime, and check the driver; or use the "
        "device 'cpu'"
    }
    return SetupError(
        problem,
        allowed=f"{', '.join(usable)} (providers: {', '.join(ort.get_available_providers())})",
        next_step=steps.get(device, "use the device 'cpu'"),
    )


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # errors are raised; its log would write the graph's names to the terminal as they are
    options.log_severity_level = 4
    # each segment has a pool of its own: the threads of the last one must not spin while the next one works
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _ports(ports: Iterable[Any]) -> Ports:
    return {port.name: (_DTYPES.get(port.type, port.type), port.shape) for port in ports}
