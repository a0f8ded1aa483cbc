"""What a chain needs of a device: memory by address, a queue of copies and segments, and waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["ALIGNMENT", "Bytes", "Device", "DeviceArray", "Program", "TensorSpec"]

ALIGNMENT = 256  # bytes; TensorRT's of a tensor's address, and what cudaMalloc gives

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DeviceArray:
    """Somebody else's C-contiguous array in a device's memory, as a batch of inputs.

    Attributes:
        address: of its first element.
        shape: with the batch first.
        dtype: of an element.
        owner: what must be kept as long as the memory is read.
        stream: on which it was made, as CUDA's integer; None: it is there already. Nothing is known of it at -1.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object
    stream: int | None = None

    @property
    def row_bytes(self) -> int:
        """Of one sample."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> DeviceArray:
        start, stop, _ = rows.indices(len(self))
        shape = (max(0, stop - start), *self.shape[1:])
        return replace(self, address=self.address + start * self.row_bytes, shape=shape)


class TensorSpec(NamedTuple):
    """A tensor at the border of a program.

    Attributes:
        dtype: as the program has it; the graph it was made of may say another.
        row: its shape without the batch.
    """

    dtype: np.dtype[Any]
    row: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Of one sample."""
        return int(np.prod(self.row, dtype=np.int64)) * self.dtype.itemsize


class Program(Protocol):
    """A segment in a device's own form."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """By name."""

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """By name."""

    def bind(self, bucket: int, rows: int, addresses: Mapping[str, int]) -> Callable[[], None]:
        """What queues the segment for so many rows, with its tensors at these addresses.

        Args:
            bucket: its position among the buckets.
            rows: of that bucket.
            addresses: of all inputs and outputs, for as long as it is used.
        """


class Device(Protocol):
    """Everything but ``alloc``, ``pinned``, ``close`` and ``finish`` only queues work, which is done in that order."""

    def alloc(self, size: int) -> int:
        """The address of so many zero bytes, a multiple of ``ALIGNMENT``; kept until the device is closed."""

    def pinned(self, size: int) -> Bytes:
        """Memory of the host that this device copies from and to without a detour."""

    def upload(self, to: int, array: npt.NDArray[Any]) -> None:
        """Copy an array from pinned memory; it must stay as it is until the device has finished."""

    def download(self, array: npt.NDArray[Any], start: int) -> None:
        """Copy into pinned memory; there once the device has finished."""

    def copy(self, to: int, start: int, size: int) -> None:
        """Copy within the device's memory; the two places do not overlap."""

    def accept(self, inputs: object) -> DeviceArray | None:
        """An array that lies in this device's memory; None: it does not lie there.

        Raises:
            InputError: if it lies there in a form that cannot be read, such as with strides.
        """

    def after(self, array: DeviceArray) -> None:
        """Let what is queued from now on wait until this array has been made."""

    def finish(self) -> None:
        """Wait until all that was queued has been done.

        Raises:
            SetupError: if anything of it failed.
        """

    def close(self) -> None:
        """Give back all memory."""
