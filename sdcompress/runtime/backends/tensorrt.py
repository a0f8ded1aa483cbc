"""TensorRT: the artifact's engines for this GPU; tensors stay on the device, CUDA graphs, no torch (device: cuda)."""

from __future__ import annotations

import weakref

from sdcompress.artifact.execution_target import ExecutionTarget, plans_digest
from sdcompress.artifact.read import Artifact
from sdcompress.errors import SetupError
from sdcompress.runtime.backends._base import ExecutorBackend
from sdcompress.runtime.on_device.buckets import buckets
from sdcompress.runtime.on_device.executor import DeviceExecutor
from sdcompress.runtime.on_device.gpu import GpuDevice
from sdcompress.runtime.on_device.plans import PlanLoader, programs
from sdcompress.tensorrt.nvidia.compatible import choose_engines
from sdcompress.tensorrt.nvidia.cuda import load_runtime
from sdcompress.tensorrt.nvidia.gpu_query import probe_cuda
from sdcompress.tensorrt.nvidia.log import Log
from sdcompress.tensorrt.nvidia.trt import is_lean, load, make_runtime, version_of

__all__ = ["backend"]

_LINES = 100  # of TensorRT's log that an engine keeps: it may warn at every call, for months


def _open(artifact: Artifact, *, threads: int | None, device: str) -> DeviceExecutor:
    """Load and run all stages once, so that the first call takes no longer than others; see ``ExecutorBackend``."""
    del threads  # the GPU's
    if device != "cuda":
        raise SetupError(
            f"TensorRT has no device '{device}'.",
            allowed="cuda",
            next_step="add --device cuda, or device='cuda'; without a GPU the backend 'onnxruntime' runs the artifact",
        )
    trt, gpu = load(), probe_cuda()
    engines = choose_engines(
        artifact.manifest.engines, tensorrt=version_of(trt), gpu=gpu, artifact=str(artifact.path), lean=is_lean(trt)
    )
    log, on = Log(_LINES), GpuDevice(load_runtime())
    try:
        with on.current():
            runtime = make_runtime(trt, log, version_compatible=engines.version_compatible)
            shapes = buckets(engines.profiles)
            loaded = programs(PlanLoader(trt, runtime, log), artifact, engines, on, shapes)
            execution_target = ExecutionTarget("tensorrt", device, plans_digest(engines))
            executor = DeviceExecutor(on, artifact.manifest, loaded, shapes, execution_target)
        executor.warm_up()
    except BaseException:
        on.close()
        raise
    weakref.finalize(executor, on.close)  # the GPU's memory goes with the engine
    return executor


backend = ExecutorBackend(_open)
