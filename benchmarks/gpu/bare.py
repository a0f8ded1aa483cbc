"""A bare TensorRT loop: what a person writes who has only the plan. Our yardstick where trtexec is not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt
from clocks import Sample

from sdcompress.errors import SetupError
from sdcompress.tensorrt.nvidia.cuda import Cuda, load_runtime
from sdcompress.tensorrt.nvidia.log import Log, create, require
from sdcompress.tensorrt.nvidia.trt import dtype_name, load, make_runtime


class Bare:
    """One engine, one context, one shape, a CUDA graph, pinned memory, a stream of its own.

    Args:
        plan: its bytes.
        rows: of the batch.
        profile: that takes it.
    """

    def __init__(self, plan: bytes, rows: int, profile: int = 0) -> None:
        self.trt = load()
        self.log, self.cuda = Log(), Cuda(load_runtime())
        self.runtime = make_runtime(self.trt, self.log)
        self.engine: Any = create(lambda: self.runtime.deserialize_cuda_engine(plan), self.log, "an engine")
        self.context: Any = create(self.engine.create_execution_context, self.log, "an execution context")
        if self.context.active_optimization_profile != profile:
            self._must("use the profile", self.context.set_optimization_profile_async, profile, self.cuda.stream)
            self.cuda.finish()
        names = [self.engine.get_tensor_name(at) for at in range(self.engine.num_io_tensors)]
        inputs = [name for name in names if self.engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT]
        for name in inputs:
            shape = (rows, *tuple(self.engine.get_tensor_shape(name))[1:])
            self._must(f"take {name} as {shape}", self.context.set_input_shape, name, shape)
        self.up = [self._buffer(name) for name in inputs]
        self.down = [self._buffer(name) for name in names if name not in inputs]
        self.marks = [self.cuda.event() for _ in range(4)]
        self._queue()  # the first run sets the engine up
        self.cuda.finish()
        self.graph = self.cuda.capture(self._queue)

    def __call__(self, inputs: npt.NDArray[Any]) -> Sample:
        """One query from an array of the host to arrays of the host, with all its clocks in ms.

        The events take some microseconds of ``end_to_end``: ``answer`` is what is compared by that clock.
        """
        cuda, marks, began = self.cuda, self.marks, perf_counter_ns()
        self.up[0][0][...] = inputs
        cuda.record(marks[0])
        for host, address in self.up:
            cuda.upload(address, host)
        cuda.record(marks[1])
        started = perf_counter_ns()
        self.queue()
        queued = perf_counter_ns()
        cuda.record(marks[2])
        for host, address in self.down:
            cuda.download(host, address)
        cuda.record(marks[3])
        cuda.finish()
        ended = perf_counter_ns()
        up, compute, down = (cuda.elapsed_ms(a, b) for a, b in pairwise(marks))
        return {
            "h2d": up, "gpu_compute": compute, "d2h": down, "enqueue": (queued - started) / 1e6,
            "end_to_end": (ended - began) / 1e6,
        }  # fmt: skip

    def answer(self, inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """The same query without a clock in it: what a service runs."""
        self.up[0][0][...] = inputs
        for host, address in self.up:
            self.cuda.upload(address, host)
        self.queue()
        for host, address in self.down:
            self.cuda.download(host, address)
        self.cuda.finish()
        return [host.copy() for host, _ in self.down]

    def queue(self) -> None:
        """Queue the engine: its graph, or plainly where it could not be captured."""
        if self.graph is None:
            self._queue()
        else:
            self.cuda.launch(self.graph)

    def compute_only(self) -> Sample:
        """The kernels alone, between two events."""
        self.cuda.record(self.marks[1])
        self.queue()
        self.cuda.record(self.marks[2])
        self.cuda.finish()
        return {"gpu_compute": self.cuda.elapsed_ms(self.marks[1], self.marks[2])}

    def close(self) -> None:
        """Give the memory back."""
        self.context = self.engine = None
        self.cuda.close()

    def _buffer(self, name: str) -> tuple[npt.NDArray[Any], int]:
        shape = tuple(int(size) for size in self.context.get_tensor_shape(name))
        dtype = np.dtype(dtype_name(self.trt, self.engine.get_tensor_dtype(name)))
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        address = self.cuda.alloc(size)
        self._must(f"use memory of ours for {name}", self.context.set_tensor_address, name, address)
        return self.cuda.pinned(size)[:size].view(dtype).reshape(shape), address

    def _queue(self) -> None:
        if not self.context.execute_async_v3(self.cuda.stream):  # plainly, as it may be what is timed
            raise SetupError(f"TensorRT cannot run the plan: {self.log.reason()}.")

    def _must(self, what: str, call: Callable[..., object], *arguments: object) -> None:
        require(
            partial(call, *arguments), self.log, what
        )  # not by assert, which python -O leaves out with the call in it
