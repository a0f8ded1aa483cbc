"""Run an artifact on a device: inputs are uploaded once, and only the signals of each exit are downloaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.errors import InputError
from sdcompress.modalities import Inputs, modality_of
from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.active_rows import Moves
from sdcompress.runtime.on_device.buckets import Buckets
from sdcompress.runtime.on_device.device import Device, DeviceArray, Program
from sdcompress.runtime.on_device.memory import Binding, Memory, Readback, allocate
from sdcompress.schema.manifest import Exit, Manifest
from sdcompress.tasks import Task, task_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DeviceExecutor", "DeviceForwardPass"]

Launch = Callable[[], None]

_MOVES, _REPEATS = 16, 7  # rows moved at once, and repetitions, to time one row


class DeviceExecutor:
    """An ``Executor`` on a device. Passes share the memory and the queue, so one waits for the other.

    Args:
        device: that holds the tensors.
        manifest: of the artifact.
        programs: one for each of its segments.
        buckets: numbers of rows that the programs run with.
        execution_target: backend, device and plans.
    """

    def __init__(
        self,
        device: Device,
        manifest: Manifest,
        programs: Sequence[Program],
        buckets: Buckets,
        execution_target: ExecutionTarget,
    ) -> None:
        self.device, self.buckets, self.execution_target, self.exits = device, buckets, execution_target, manifest.exits
        self.task, self._lock = task_of(manifest), Lock()
        self.decided = self.task.decision_dtype
        self._modality = modality_of(manifest)
        self.memory: Memory = allocate(device, manifest, programs, buckets.largest)
        self._launches = [[self._bind(program, bucket) for program in programs] for bucket in range(len(buckets.rows))]
        exits = range(len(manifest.exits))
        self._segments_of_exit = tuple(manifest.segments_between(exit_, exit_) for exit_ in exits)
        self._carried_bindings: tuple[tuple[Binding, ...], ...] = tuple(
            tuple(self.memory.bindings[tensor.name] for tensor in manifest.live_tensors(exit_)) for exit_ in exits
        )

    @property
    def largest(self) -> int:
        """Return the largest bucket."""
        return self.buckets.largest

    def rows(self, rows: int) -> int:
        """Return the bucket that a number of rows is rounded up to; more than ``largest`` are split."""
        if rows > self.largest:
            return rows
        return self.buckets.rows[self.buckets.index(rows)]

    def checked(self, inputs: Any) -> Inputs:
        """Return numpy arrays, or arrays that all lie in this device's memory; see ``Executor.checked``."""
        tensors = self._modality.tensors
        named = inputs.arrays if isinstance(inputs, Inputs) else inputs
        named = named if isinstance(named, Mapping) else {tensors[0].name: named}
        on_device: dict[str, Any] = {
            name: array if isinstance(array, DeviceArray) else self.device.accept(array)
            for name, array in named.items()
            if not isinstance(array, np.ndarray)
        }
        if on_device.keys() != {tensor.name for tensor in tensors} or None in on_device.values():
            return self._modality.check(inputs)  # accepts numpy arrays, and refuses the rest
        for tensor in tensors:
            array, dtype = on_device[tensor.name], self.memory.staging[tensor.name].dtype
            if array.dtype != dtype or array.shape[1:] != tensor.shape[1:]:
                raise InputError(
                    f"The input '{tensor.name}' is {array.dtype} of the shape {list(array.shape)}, on the device.",
                    allowed=f"{dtype} of shape [B, {', '.join(map(str, tensor.shape[1:]))}]",
                    next_step="convert it there, or give a numpy array from engine.preprocess",
                )
        rows = {name: len(array) for name, array in on_device.items()}
        if len(set(rows.values())) > 1:  # a copy would read behind the end of the shorter one
            raise InputError(
                f"The inputs on the device have different numbers of rows: {rows}.",
                allowed="one batch size for all inputs",
                next_step="make them of the same samples",
            )
        return Inputs(on_device)

    def skipping(self, exits: Collection[int]) -> DeviceExecutor:
        """Return this executor: compiled programs compute all of their outputs."""
        del exits
        return self

    def start(self, inputs: Inputs) -> DeviceForwardPass:
        """Return a pass over at most ``largest`` rows."""
        return DeviceForwardPass(self, inputs)

    def stage(self, exit_index: int, rows: int) -> None:
        """Queue the segments of a stage.

        Args:
            exit_index: of the exit at its end.
            rows: allocated rows.
        """
        launches = self._launches[self.buckets.index(rows)]
        for segment in self._segments_of_exit[exit_index]:
            launches[segment]()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other pass uses the memory and the queue, and use the device in the calling thread."""
        with self._lock, self.device.current():
            yield

    def warm_up(self) -> None:
        """Run every stage twice in every bucket, so that no later call pays for the initialisation."""
        with self.alone():
            for rows in self.buckets.rows * 2:
                for exit_index in range(len(self.exits)):
                    self.stage(exit_index, rows)
                self.device.finish()

    def move_ms(self, exit_index: int) -> float | None:
        """Measure the ms to move one row of all carried tensors; None if the buckets are too small to move any."""
        count = min(_MOVES, self.largest // 2)
        if count == 0:
            return None
        rows = np.arange(count)
        moves, times_ns = Moves(rows * 2, rows * 2 + 1, count), []
        with self.alone():
            for _ in range(_REPEATS):
                start = perf_counter_ns()
                self.compact(exit_index, moves)
                self.device.finish()
                times_ns.append(perf_counter_ns() - start)
        return float(np.median(times_ns)) / count / 1e6

    def compact(self, exit_index: int, moves: Moves) -> None:
        """Queue the copies that move rows of the tensors carried past an exit."""
        blocks = list(moves.blocks())
        for address, spec in self._carried_bindings[exit_index]:
            for target, start, count in blocks:
                self.device.copy(
                    address + target * spec.row_bytes, address + start * spec.row_bytes, count * spec.row_bytes
                )

    def _bind(self, program: Program, bucket: int) -> Launch:
        names = (*program.inputs, *program.outputs)
        addresses = {name: self.memory.bindings[name].address for name in names}
        return program.bind(bucket, self.buckets.rows[bucket], addresses)


class DeviceForwardPass:
    """A ``ForwardPass`` on a device. Returned arrays lie in pinned memory, which the next pass overwrites.

    Args:
        executor: owner of the memory and the queue.
        inputs: checked, in host or device memory.
    """

    def __init__(self, executor: DeviceExecutor, inputs: Inputs) -> None:
        self._executor, self._inputs, self._rows = executor, inputs, len(inputs)
        self._alone, self._idle = executor.alone(), True
        self._read: dict[int, Float] = {}  # outputs that were copied already, by exit

    def __enter__(self) -> Self:
        self._alone.__enter__()
        try:
            self._upload()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def stage(self, exit_index: int) -> None:
        """Queue the stage of an exit."""
        self._idle = False
        self._executor.stage(exit_index, self._rows)

    def signals(self, exit_index: int, temperature: float) -> Signals:
        """Return the signals of the graph if it computes them at this temperature, else those of the outputs."""
        readback, exit_ = self._executor.memory.signals[exit_index], self._executor.exits[exit_index]
        if readback is None or temperature != 1:
            outputs = self.outputs(exit_index)
            self.finish()
            return self._executor.task.signals(self.copied(outputs), temperature)
        self._queue(readback)
        self.finish()
        return _signals(self._executor.task, self._executor.decided, exit_, readback, self._rows)

    def outputs(self, exit_index: int) -> Float:
        """Queue a copy of the outputs."""
        if exit_index not in self._read:
            readback = self._executor.memory.outputs[exit_index]
            self._queue(readback)
            (buffer,) = readback.arrays.values()
            self._read[exit_index] = buffer[: self._rows]
        return self._read[exit_index]

    def compact(self, exit_index: int, moves: Moves) -> None:
        """Queue the copies of a compaction."""
        self._idle = False
        self._executor.compact(exit_index, moves)
        self._rows = moves.rows

    def finish(self) -> None:
        """Wait for the queue."""
        if not self._idle:
            self._executor.device.finish()
            self._idle = True

    def copied(self, outputs: Float) -> Float:
        """Return a copy out of the pinned memory."""
        return np.array(outputs, np.float32)

    def _queue(self, readback: Readback) -> None:
        self._idle = False
        self._executor.device.download(readback.host[: readback.size(self._rows)], readback.start)

    def _upload(self) -> None:
        device, memory = self._executor.device, self._executor.memory
        self._idle = False
        for name, array in self._inputs.arrays.items():
            address, spec = memory.bindings[name]
            if isinstance(array, DeviceArray):
                device.after(array)
                device.copy(address, array.address, self._rows * spec.row_bytes)
            else:
                staged = memory.staging[name][: self._rows]
                staged[...] = array
                device.upload(address, staged)

    def _release(self) -> None:
        """Empty the queue before another pass uses the memory, also after an error."""
        try:
            self.finish()
        finally:
            self._alone.__exit__(None, None, None)


def _signals(task: Task, decided: np.dtype[Any], exit_: Exit, readback: Readback, rows: int) -> Signals:
    assert exit_.signals is not None, "there is a readback"
    values: npt.NDArray[Any] = readback.arrays[exit_.signals.values][:rows]
    decision: npt.NDArray[Any] = readback.arrays[exit_.signals.decision][:rows]
    # FP16 engines may return float16, and TensorRT 8 int32; arrays of the right type are not copied
    values, decision = values.astype(np.float32, copy=False), decision.astype(decided, copy=False)
    return task.signals_of(values, decision)
