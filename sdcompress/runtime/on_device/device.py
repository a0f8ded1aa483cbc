"""Define the interface of a device: memory by address, a queue of copies and segments, recorded work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["ALIGNMENT", "Bytes", "Device", "DeviceArray", "GraphRecorder", "GraphReplay", "Program", "TensorSpec"]

ALIGNMENT = 256  # bytes; TensorRT's of a tensor's address, and what cudaMalloc gives

Bytes = npt.NDArray[np.uint8]
Recording = TypeVar("Recording")


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous array of another library in a device's memory, as a batch of inputs.

    Attributes:
        address: of its first element.
        shape: with the batch first.
        dtype: of an element.
        owner: object that keeps the memory alive.
        stream: that computes it, as CUDA's integer; None: it is complete; -1: unknown.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object
    stream: int | None = None

    @property
    def row_bytes(self) -> int:
        """Return the bytes of one sample."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> DeviceArray:
        start, stop, _ = rows.indices(len(self))
        shape = (max(0, stop - start), *self.shape[1:])
        return replace(self, address=self.address + start * self.row_bytes, shape=shape)


class TensorSpec(NamedTuple):
    """An input or output of a program.

    Attributes:
        dtype: of the program, which may differ from that of its graph.
        row: its shape without the batch.
    """

    dtype: np.dtype[Any]
    row: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Return the bytes of one sample."""
        return int(np.prod(self.row, dtype=np.int64)) * self.dtype.itemsize


class Program(Protocol):
    """A segment that is compiled for a device."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Return the specs of the inputs by name."""

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Return the specs of the outputs by name."""

    def bind(self, bucket: int, rows: int, addresses: Mapping[str, int]) -> Callable[[], None]:
        """Return a call that queues the segment for a bucket, with its tensors at these addresses.

        Args:
            bucket: its position among the buckets.
            rows: of that bucket.
            addresses: of all inputs and outputs, valid as long as the call is used.
        """


class Device(Protocol):
    """A device with a queue: ``upload``, ``download``, ``copy`` and ``after`` only queue work."""

    def current(self) -> AbstractContextManager[None]:
        """Return a block in which the calling thread uses this device; the work of a pass is within one."""

    def alloc(self, size: int) -> int:
        """Return the address of ``size`` zero bytes, a multiple of ``ALIGNMENT``; valid until the device is closed."""

    def pinned(self, size: int) -> Bytes:
        """Return page-locked host memory, from and to which the device copies directly."""

    def upload(self, to: int, array: npt.NDArray[Any]) -> None:
        """Copy an array from pinned memory; it must not change until the device has finished."""

    def download(self, array: npt.NDArray[Any], start: int) -> None:
        """Copy into pinned memory; complete once the device has finished."""

    def copy(self, to: int, start: int, size: int) -> None:
        """Copy within the device's memory; the two ranges do not overlap."""

    def accept(self, inputs: object) -> DeviceArray | None:
        """Return the inputs as an array in this device's memory; None if they are elsewhere.

        Raises:
            InputError: if the array cannot be read, for example because it has strides.
        """

    def after(self, array: DeviceArray) -> None:
        """Let the work that is queued from now on wait until this array is complete."""

    def finish(self) -> None:
        """Wait until all queued work is done.

        Raises:
            DeviceError: if any of it failed.
        """

    def close(self) -> None:
        """Free all memory."""


class GraphRecorder(Protocol[Recording]):
    """Records queued work and replays it, such as CUDA graphs on a stream."""

    def capture(self, queue: Callable[[], None]) -> Recording | None:
        """Record the work that a call queues, without doing it; return None, without any effect, if it cannot be."""

    def launch(self, recording: Recording, /) -> None:
        """Queue recorded work."""


class GraphReplay(Generic[Recording]):
    """Work of fixed shapes and addresses; the first call runs it plainly, because engines initialise themselves then.

    Args:
        queue: queues the work.
        recorder: None: never record.
    """

    def __init__(self, queue: Callable[[], None], recorder: GraphRecorder[Recording] | None) -> None:
        self._queue, self._recorder = queue, recorder
        self._recording: Recording | None = None
        self._ran = False

    @property
    def recorded(self) -> bool:
        """Return whether the work is recorded."""
        return self._recording is not None

    def __call__(self) -> None:
        """Queue the work."""
        if self._recording is None and self._ran and self._recorder is not None:
            self._recording = self._recorder.capture(self._queue)
            if self._recording is None:
                self._recorder = None  # the next attempt would fail too
        if self._recording is None or self._recorder is None:
            self._queue()
            self._ran = True
        else:
            self._recorder.launch(self._recording)
