"""The host's memory as a device: what an executor on a device does, step by step, where everything can be looked at.

An executable specification, and the oracle of the tests: the same executor, addresses and copies as on a GPU, with ONNX
Runtime's segments. ``late`` does nothing that is queued before it is waited for, as the slowest GPU might; whoever
reads without waiting then reads what was there before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.errors import ArtifactError
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.on_device.device import ALIGNMENT, Bytes, DeviceArray, TensorSpec
from sdcompress.schema.manifest import Segment, Tensor

__all__ = ["HostDevice", "HostProgram"]


class HostDevice:
    """See ``Device``.

    Args:
        late: queue everything until it is waited for; else do it at once.
    """

    def __init__(self, *, late: bool = True) -> None:
        self._late, self._queue = late, list[Callable[[], object]]()
        self._held: list[Bytes] = []
        self.moved: list[int] = []  # bytes of every copy within the device

    def current(self) -> AbstractContextManager[None]:
        """There is no other host."""
        return nullcontext()

    def alloc(self, size: int) -> int:
        """See ``Device.alloc``."""
        block = np.zeros(size + ALIGNMENT, np.uint8)
        self._held.append(block)
        return -(-block.ctypes.data // ALIGNMENT) * ALIGNMENT

    def pinned(self, size: int) -> Bytes:
        """See ``Device.pinned``."""
        return np.zeros(size, np.uint8)

    def upload(self, to: int, array: npt.NDArray[Any]) -> None:
        """See ``Device.upload``."""
        self.queue(lambda: ctypes.memmove(to, array.ctypes.data, array.nbytes))

    def download(self, array: npt.NDArray[Any], start: int) -> None:
        """See ``Device.download``."""
        self.queue(lambda: ctypes.memmove(array.ctypes.data, start, array.nbytes))

    def copy(self, to: int, start: int, size: int) -> None:
        """See ``Device.copy``."""
        self.moved.append(size)
        self.queue(lambda: ctypes.memmove(to, start, size))

    def accept(self, inputs: object) -> DeviceArray | None:
        """A ``DeviceArray`` of this process's own memory."""
        return inputs if isinstance(inputs, DeviceArray) else None

    def after(self, array: DeviceArray) -> None:
        """It is there."""

    def finish(self) -> None:
        """Do all that is queued, in order."""
        queue, self._queue = self._queue, []
        for work in queue:
            work()

    def close(self) -> None:
        """Let the memory go."""
        self._held.clear()

    def queue(self, work: Callable[[], object]) -> None:
        """Do it now, or when it is waited for."""
        if self._late:
            self._queue.append(work)
        else:
            work()


class HostProgram:
    """A segment run by a callable on numpy arrays, with its tensors at given addresses; see ``Program``.

    Args:
        device: whose queue it uses.
        segment: its entry in the manifest.
        graph: of that segment.
        types: of tensors that this device keeps in another type than the graph, as TensorRT 8 keeps int64 in int32.
    """

    def __init__(
        self, device: HostDevice, segment: Segment, graph: Graph, types: Mapping[str, npt.DTypeLike] | None = None
    ) -> None:
        self._device, self._graph = device, graph
        self._types = {tensor.name: np.dtype(tensor.dtype) for tensor in (*segment.inputs, *segment.outputs)}
        self.inputs = {tensor.name: _port(tensor, types or {}) for tensor in segment.inputs}
        self.outputs = {tensor.name: _port(tensor, types or {}) for tensor in segment.outputs}
        self.rows_run: list[int] = []

    def bind(self, bucket: int, rows: int, addresses: Mapping[str, int]) -> Callable[[], None]:
        """See ``Program.bind``; the buckets are all alike here."""
        del bucket
        inputs = {name: _view(addresses[name], port, rows) for name, port in self.inputs.items()}
        outputs = [_view(addresses[name], port, rows) for name, port in self.outputs.items()]

        def work() -> None:
            given = {name: array.astype(self._types[name], copy=False) for name, array in inputs.items()}
            for output, found in zip(outputs, self._graph(given), strict=True):
                output[...] = found

        def launch() -> None:
            self.rows_run.append(rows)
            self._device.queue(work)

        return launch


def _view(address: int, port: TensorSpec, rows: int) -> npt.NDArray[Any]:
    block: Bytes = np.ctypeslib.as_array((ctypes.c_uint8 * (rows * port.row_bytes)).from_address(address))
    return block.view(port.dtype).reshape(rows, *port.row)


def _port(tensor: Tensor, types: Mapping[str, npt.DTypeLike]) -> TensorSpec:
    row = tensor.shape[1:]
    if not all(isinstance(size, int) for size in row):
        raise ArtifactError(
            f"The tensor '{tensor.name}' has the shape {list(tensor.shape)}.",
            allowed="only the batch may be dynamic",
            next_step="export it again at one image size, or run it with onnxruntime",
        )
    return TensorSpec(np.dtype(types.get(tensor.name, tensor.dtype)), tuple(int(size) for size in row))
