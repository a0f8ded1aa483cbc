"""ONNX Runtime, on the CPU or through its CUDA provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as raised

from sdcompress.errors import ArtifactError, SetupError
from sdcompress.runtime.backends import Array, Segment

__all__ = ["OnnxRuntime"]

_UNLOADABLE = (raised.Fail, raised.InvalidGraph, raised.InvalidProtobuf, raised.NotImplemented)
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    """Sessions of ONNX Runtime.

    Args:
        threads: intra-op threads; None leaves the choice to ONNX Runtime (one per core).
        device: "cpu" or "cuda".

    Raises:
        SetupError: if the installed onnxruntime has no provider for the device.
    """

    def __init__(self, *, threads: int | None, device: str) -> None:
        available = ort.get_available_providers()
        self._provider = _PROVIDERS.get(device, "")
        if self._provider not in available:
            raise SetupError(
                f"onnxruntime {ort.__version__} cannot run on '{device}' here.",
                allowed=", ".join(name for name, provider in _PROVIDERS.items() if provider in available),
                next_step="install onnxruntime-gpu instead of onnxruntime for 'cuda', or choose another device",
            )
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads or 0
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3  # errors; what goes wrong reaches the caller as an exception

    def load(self, file: Path, outputs: Sequence[str]) -> Segment:
        """A session for one ONNX file.

        Raises:
            ArtifactError: if this onnxruntime cannot load it.
        """
        try:
            session = ort.InferenceSession(str(file), self._options, providers=[self._provider])
        except _UNLOADABLE as error:
            raise ArtifactError(
                f"onnxruntime {ort.__version__} cannot load {file}: {str(error).splitlines()[0]}",
                next_step="upgrade onnxruntime, or export again with a lower --opset",
            ) from error
        names, run = list(outputs), session.run

        def segment(inputs: Mapping[str, Array]) -> Sequence[Array]:
            tensors: Sequence[Array] = run(names, inputs)
            return tensors

        return segment
