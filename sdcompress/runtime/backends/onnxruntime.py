"""ONNX Runtime: CPU, or CUDA with the package onnxruntime-gpu; all graph optimisations."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from sdcompress.errors import ArtifactError, SetupError
from sdcompress.runtime.backends._base import Array, Graph
from sdcompress.schema.manifest import Segment

__all__ = ["load"]

_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}

# they have no base in common but RuntimeError and Exception
_UNLOADABLE = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


def load(file: Path, segment: Segment, *, threads: int | None, device: str) -> Graph:
    """Make a session; see ``Backend``. A session may be called from several threads at once."""
    providers = _providers(device)
    try:
        session = ort.InferenceSession(file, _options(threads), providers=providers)
    except _UNLOADABLE as error:
        raise ArtifactError(
            f"ONNX Runtime {ort.__version__} cannot load {file}: {str(error).splitlines()[0]}",
            allowed="a graph that this version of ONNX Runtime knows all operators and the opset of",
            next_step="upgrade onnxruntime, or export again with a lower export.opset",
        ) from error
    if providers[0] not in session.get_providers():  # ONNX Runtime falls back without an error
        raise _no_device(device, f"{providers[0]} could not be started; its CUDA or cuDNN libraries do not load.")
    _check_names(file, session, segment)
    outputs = [tensor.name for tensor in segment.outputs]

    def graph(tensors: dict[str, Array]) -> list[Array]:
        found: list[Array] = session.run(outputs, tensors)
        return found

    return graph


def _providers(device: str) -> list[str]:
    providers = _PROVIDERS.get(device)
    if providers is None:
        raise _no_device(device, f"ONNX Runtime has no device '{device}' here.")
    if providers[0] not in ort.get_available_providers():
        raise _no_device(device, f"This onnxruntime has no {providers[0]}.")
    return providers


def _no_device(device: str, found: str) -> SetupError:
    usable = [name for name, (first, *_) in _PROVIDERS.items() if first in ort.get_available_providers()]
    steps = {
        "cuda": "pip install onnxruntime-gpu instead of onnxruntime, and check the driver; or use the device 'cpu'"
    }
    return SetupError(
        found,
        allowed=f"{', '.join(usable)} (providers: {', '.join(ort.get_available_providers())})",
        next_step=steps.get(device, "use the device 'cpu'"),
    )


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors, which are raised anyway
    # each segment has a pool of its own: the threads of the last one must not spin while the next one works
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _check_names(file: Path, session: ort.InferenceSession, segment: Segment) -> None:
    found = ({node.name for node in session.get_inputs()}, {node.name for node in session.get_outputs()})
    listed = ({tensor.name for tensor in segment.inputs}, {tensor.name for tensor in segment.outputs})
    if found != listed:
        raise ArtifactError(
            f"{file} has the inputs {sorted(found[0])} and the outputs {sorted(found[1])}.",
            allowed=f"{sorted(listed[0])} and {sorted(listed[1])}, as the manifest says",
            next_step="export the artifact again",
        )
