"""One CUDA stream with memory, copies, events and graphs, by NVIDIA's cuda-bindings.

Every call is checked, and an error names the failed action. Source of every call: CUDA Runtime API, 12 and 13. It has
never run on a GPU; docs/tensorrt.md lists what has.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.errors import DeviceError, SetupError
from sdcompress.tensorrt.nvidia.gpu_query import MEMORY_STEP, probe_cuda
from sdcompress.tensorrt.nvidia.install import bindings_line

__all__ = ["Cuda", "check_result", "first_gpu", "load_runtime"]

_FIRST = 0  # of the GPUs that CUDA_VISIBLE_DEVICES leaves
_PORTABLE = 1  # cudaHostAllocPortable: pinned for all contexts
_NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for the legacy default stream
_NEEDS = "cuda-bindings 12.6 or later, of the driver's CUDA version or below"
_HOST_STEP = "free memory of this machine, or build engines for smaller batches: build-engines ... --batch 1:8:16"
_OLD_STEP = f"upgrade the NVIDIA driver; or, if it is for CUDA 12: {bindings_line('12.')}"


def load_runtime() -> Any:
    """Return the module ``cuda.bindings.runtime``, after a check that there is a GPU.

    Raises:
        SetupError: if there is no driver, no GPU, or no cuda-bindings.
    """
    gpu = probe_cuda()
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise SetupError(
            f"CUDA cannot be called from Python: {error}.",
            allowed=_NEEDS,
            next_step=bindings_line(gpu.cuda),
        ) from error
    return runtime


def check_result(runtime: Any, result: tuple[Any, ...], doing: str, *, memory_step: str = MEMORY_STEP) -> Any:
    """Return the values of a call behind its error code: an empty tuple, one value, or a tuple.

    Args:
        runtime: from ``load_runtime``.
        result: of one of its functions.
        doing: the action, for the message: "copying to the GPU".
        memory_step: what to do where memory is lacking.

    Raises:
        DeviceError: if the code is not success.
    """
    code, *rest = result
    if int(code) != 0:
        _, name = runtime.cudaGetErrorName(code)
        error = name.decode() if isinstance(name, bytes) else str(code)
        raise DeviceError(
            f"CUDA failed while {doing}: {error} ({int(code)}).",
            next_step={"cudaErrorMemoryAllocation": memory_step, "cudaErrorInsufficientDriver": _OLD_STEP}.get(
                error,
                "check 'nvidia-smi', and run it again in a new process: a context in which a "
                "kernel failed cannot be used any more",
            ),
        )
    return rest[0] if len(rest) == 1 else tuple(rest)


@contextlib.contextmanager
def first_gpu(runtime: Any) -> Iterator[None]:
    """Make the first GPU that CUDA sees the current one of the calling thread, and the one before at the end.

    TensorRT builds, loads and runs on the current GPU, and a stream takes kernels from no other. Other code of the
    process, such as torch, may have chosen another one, and goes on with it.

    Args:
        runtime: from ``load_runtime``.

    Raises:
        DeviceError: if CUDA cannot use the GPU.
    """
    before = check_result(runtime, runtime.cudaGetDevice(), "choosing the GPU")
    if before != _FIRST:
        check_result(runtime, runtime.cudaSetDevice(_FIRST), "choosing the GPU")
    try:
        yield
    finally:
        if before != _FIRST:
            runtime.cudaSetDevice(before)  # unchecked: its error would hide an earlier one


@contextlib.contextmanager
def _gc_disabled() -> Iterator[None]:
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Cuda:
    """The first GPU that CUDA sees (CUDA_VISIBLE_DEVICES chooses), with one stream of its own; see ``current``.

    Args:
        runtime: from ``load_runtime``.

    Attributes:
        stream: as CUDA's integer.
    """

    def __init__(self, runtime: Any) -> None:
        self._rt = runtime
        kinds = runtime.cudaMemcpyKind
        self._up, self._down = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        self._within, self._mode = kinds.cudaMemcpyDeviceToDevice, runtime.cudaStreamCaptureMode
        self._blocks: list[int] = []
        self._host: list[int] = []
        self._graphs: list[Any] = []
        self._events: list[Any] = []
        self._closed = False
        with self.current():
            self._stream = self._check(runtime.cudaStreamCreateWithFlags(_NON_BLOCKING), "making a stream")
            self._event = self.event()
        self.stream = int(self._stream)

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Return a block in which the calling thread uses this GPU; all other methods but ``close`` need one.

        Threads begin with the first GPU: where nothing chooses another, all methods may be called without it.
        """
        return first_gpu(self._rt)

    def alloc(self, size: int) -> int:
        """Return the address of ``size`` zero bytes; valid until ``close``."""
        size = max(size, 1)
        address = int(self._check(self._rt.cudaMalloc(size), f"allocating {size:,} bytes on the GPU"))
        self._blocks.append(address)
        self._check(self._rt.cudaMemsetAsync(address, 0, size, self._stream), "clearing memory")
        return address

    def pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """Zeroed page-locked memory of the host; valid until ``close``, after which the array must not be used."""
        size = max(size, 1)
        result = self._rt.cudaHostAlloc(size, _PORTABLE)
        address = int(check_result(self._rt, result, f"pinning {size:,} bytes of the host", memory_step=_HOST_STEP))
        self._host.append(address)
        array: npt.NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        array[:] = 0
        return array

    def close(self) -> None:
        """Free all memory, graphs and events; may be called twice."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(SetupError), self.current():  # an error must not hide an earlier one
            with contextlib.suppress(SetupError):
                self.finish()
            for graph in self._graphs:
                self._rt.cudaGraphExecDestroy(graph)
            for address in self._blocks:
                self._rt.cudaFree(address)
            for address in self._host:
                self._rt.cudaFreeHost(address)
            for event in self._events:
                self._rt.cudaEventDestroy(event)
            self._rt.cudaStreamDestroy(self._stream)

    def upload(self, to: int, array: npt.NDArray[Any]) -> None:
        """Queue a copy from the host to the GPU."""
        self._copy(to, array.ctypes.data, array.nbytes, self._up, "copying to the GPU")

    def download(self, array: npt.NDArray[Any], start: int) -> None:
        """Queue a copy from the GPU to the host."""
        self._copy(array.ctypes.data, start, array.nbytes, self._down, "copying from the GPU")

    def copy(self, to: int, start: int, size: int) -> None:
        """Queue a copy within the GPU."""
        self._copy(to, start, size, self._within, "copying within the GPU")

    def finish(self) -> None:
        """Wait for the stream; raises the errors of queued work."""
        self._check(self._rt.cudaStreamSynchronize(self._stream), "waiting for the GPU")

    def wait_for(self, stream: int) -> None:
        """Let this stream wait for the work that is queued on another one.

        Args:
            stream: as CUDA's integer; 1 is the legacy default stream, 2 the default stream of this thread.
        """
        self._check(self._rt.cudaEventRecord(self._event, stream), "marking the producer's stream")
        self._check(self._rt.cudaStreamWaitEvent(self._stream, self._event, 0), "waiting for the producer's stream")

    def wait_for_all(self) -> None:
        """Wait until the GPU has done all work that this process has queued."""
        self._check(self._rt.cudaDeviceSynchronize(), "waiting for the whole GPU")

    def event(self) -> Any:
        """Return a new event with timing; valid until ``close``."""
        event = self._check(self._rt.cudaEventCreate(), "making an event")
        self._events.append(event)
        return event

    def record(self, event: Any) -> None:
        """Record an event on the stream."""
        self._check(self._rt.cudaEventRecord(event, self._stream), "recording an event")

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Return milliseconds of the GPU's clock between two events that have completed."""
        return float(self._check(self._rt.cudaEventElapsedTime(start, end), "reading events"))

    def capture(self, queue: Callable[[], None]) -> Any | None:
        """Return an executable graph of the work that a call queues on the stream; None if it cannot be captured.

        Garbage collection is off meanwhile: freeing GPU memory is not permitted within a capture. A failed capture is
        ended and its error cleared, so that plain queueing goes on. The work must have run once before: engines
        initialise themselves in their first run, which is not permitted within a capture either.
        """
        began = self._rt.cudaStreamBeginCapture(self._stream, self._mode.cudaStreamCaptureModeThreadLocal)
        self._check(began, "beginning a capture")
        failed: Exception | None = None
        try:
            with _gc_disabled():
                queue()
        except SetupError as error:
            failed = error
        finally:
            code, graph = self._rt.cudaStreamEndCapture(self._stream)
        if failed is not None or int(code) != 0:
            if int(code) == 0 and graph is not None:
                self._rt.cudaGraphDestroy(graph)
            self._rt.cudaGetLastError()  # clears it
            return None
        instantiated, ready = self._rt.cudaGraphInstantiate(graph, 0)
        self._rt.cudaGraphDestroy(graph)
        if int(instantiated) != 0:
            self._rt.cudaGetLastError()
            return None
        self._graphs.append(ready)
        return ready

    def launch(self, graph: Any) -> None:
        """Queue a captured graph."""
        self._check(self._rt.cudaGraphLaunch(graph, self._stream), "launching a CUDA graph")

    def _copy(self, to: int, start: int, size: int, kind: Any, doing: str) -> None:
        code = self._rt.cudaMemcpyAsync(to, start, size, kind, self._stream)[0]
        if int(code) != 0:  # the most frequent call: format the message only on failure
            self._check((code,), doing)

    def _check(self, result: tuple[Any, ...], doing: str) -> Any:
        return check_result(self._rt, result, doing)
