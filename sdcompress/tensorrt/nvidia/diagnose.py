"""Diagnose which parts of a TensorRT installation are missing on this machine."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from sdcompress.errors import SetupError
from sdcompress.schema.base import Frozen
from sdcompress.tensorrt.nvidia.gpu_query import probe_cuda
from sdcompress.tensorrt.nvidia.install import bindings_line, install_line, version_problem
from sdcompress.tensorrt.nvidia.trt import import_tensorrt, version_of

__all__ = ["TensorRtState", "diagnose_tensorrt"]


class TensorRtState(Frozen):
    """The parts that were found, and messages for those that are missing."""

    gpu: str | None
    tensorrt: str | None
    cuda_bindings: str | None
    missing: tuple[str, ...]


def diagnose_tensorrt() -> TensorRtState:
    """Query the driver, import TensorRT and look for cuda-bindings, independently of each other.

    Only TensorRT's version is read: without a driver any other call may crash.
    """
    gpu, cuda, missing = None, "", []
    try:
        device = probe_cuda()
        gpu, cuda = f"{device.name} ({device.compute_capability}), driver {device.driver or 'unknown'}", device.cuda
    except SetupError as error:
        missing.append(_line("GPU", error))
    tensorrt = None
    try:
        tensorrt = version_of(import_tensorrt(cuda, lean=True))
    except SetupError as error:
        missing.append(_line("TensorRT", error))
    if tensorrt is not None and (problem := version_problem(tensorrt)):
        missing.append(f"TensorRT: {problem} {install_line(cuda)}")
    bindings = _installed("cuda-bindings")
    if bindings is None:
        missing.append(f"cuda-bindings: not installed. {bindings_line(cuda)}")
    return TensorRtState(gpu=gpu, tensorrt=tensorrt, cuda_bindings=bindings, missing=tuple(missing))


def _line(what: str, error: SetupError) -> str:
    return f"{what}: {error.problem} {error.next_step}"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
