"""A chain on a device: inputs go up once, what is needed to decide comes down, and only it, once for each exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.certificate import ExecutionTarget
from sdcompress.errors import InputError
from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.active_rows import Moves
from sdcompress.runtime.inputs import checked
from sdcompress.runtime.resident.buckets import Buckets
from sdcompress.runtime.resident.device import Device, DeviceArray, Program
from sdcompress.runtime.resident.memory import Memory, Place, Reading, memory
from sdcompress.schema.manifest import Exit, Manifest
from sdcompress.tasks import Task, task_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ResidentChain", "ResidentRun"]

Launch = Callable[[], None]

_MOVES, _TURNS = 16, 7  # rows moved at a time, and times, to learn what one takes


class ResidentChain:
    """See ``Chain``. One run at a time: they share the memory and the queue, and others wait.

    Args:
        device: where the tensors live.
        manifest: of the artifact.
        programs: one for each of its segments.
        buckets: the numbers of rows that these are run with.
        where: what computes them.
    """

    def __init__(
        self, device: Device, manifest: Manifest, programs: Sequence[Program], buckets: Buckets, where: ExecutionTarget
    ) -> None:
        self.device, self.buckets, self.where, self.exits = device, buckets, where, manifest.exits
        self.task, self.lock = task_of(manifest), Lock()
        channels, height, width = (int(size) for size in manifest.input.shape[1:])
        self._image, self.input = (channels, height, width), manifest.input.name
        self.memory: Memory = memory(device, manifest, programs, buckets.largest)
        self._launches = [[self._bound(program, bucket) for program in programs] for bucket in range(len(buckets.rows))]
        ends = [exit_.segment + 1 for exit_ in manifest.exits]
        self._between = tuple(zip([0, *ends], ends, strict=False))
        self.kept: tuple[tuple[Place, ...], ...] = tuple(
            tuple(self.memory.places[tensor.name] for tensor in manifest.border(exit_)) for exit_ in range(len(ends))
        )

    @property
    def largest(self) -> int:
        """The largest bucket."""
        return self.buckets.largest

    def rows(self, rows: int) -> int:
        """The bucket that they are rounded up to; what does not fit one is run in parts."""
        if rows > self.largest:
            return rows
        return self.buckets.rows[self.buckets.position(rows)]

    def checked(self, inputs: Any) -> Float | DeviceArray:
        """A numpy array, or one in this device's memory; see ``Chain.checked``."""
        if isinstance(inputs, np.ndarray):
            return checked(inputs, self._image)
        found = self.device.accept(inputs)
        if found is None:
            return checked(inputs, self._image)  # which says what it is instead
        if found.dtype != np.float32 or found.shape[1:] != self._image:
            raise InputError(
                f"The input is {found.dtype} of the shape {list(found.shape)}, on the device.",
                allowed=f"float32 of shape [B, {', '.join(map(str, self._image))}]",
                next_step="convert it there, or give a numpy array from engine.preprocess(images)",
            )
        return found

    def start(self, inputs: Any) -> ResidentRun:
        """A run over at most ``largest`` rows."""
        return ResidentRun(self, inputs)

    def stage(self, position: int, rows: int) -> None:
        """Queue what lies between the exit before and this one.

        Args:
            position: of the exit.
            rows: that are allocated.
        """
        first, end = self._between[position]
        for launch in self._launches[self.buckets.position(rows)][first:end]:
            launch()

    def warm_up(self) -> None:
        """Run every stage twice in every bucket, so that no later call pays for what is made at first."""
        with self.lock:
            for rows in self.buckets.rows * 2:
                for position in range(len(self.exits)):
                    self.stage(position, rows)
                self.device.finish()

    def move_ms(self, position: int) -> float | None:
        """To move one row of all tensors that go on, measured; None if the buckets are too small to move any."""
        count = min(_MOVES, self.largest // 2)
        if count == 0:
            return None
        rows = np.arange(count)
        moves, took = Moves(rows * 2, rows * 2 + 1, count), []
        with self.lock:
            for _ in range(_TURNS):
                start = perf_counter_ns()
                self.compact(position, moves)
                self.device.finish()
                took.append(perf_counter_ns() - start)
        return float(np.median(took)) / count / 1e6

    def compact(self, position: int, moves: Moves) -> None:
        """Queue the copies that move rows of what goes on after an exit."""
        blocks = list(moves.blocks())
        for address, port in self.kept[position]:
            for to, start, count in blocks:
                self.device.copy(
                    address + to * port.row_bytes, address + start * port.row_bytes, count * port.row_bytes
                )

    def _bound(self, program: Program, bucket: int) -> Launch:
        names = (*program.inputs, *program.outputs)
        places = {name: self.memory.places[name].address for name in names}
        return program.bound(bucket, self.buckets.rows[bucket], places)


class ResidentRun:
    """See ``Run``. Arrays that it gives lie in pinned memory, which the next run overwrites.

    Args:
        chain: on whose memory it runs.
        inputs: float32 [rows, C, H, W] in the host's memory or the device's.
    """

    def __init__(self, chain: ResidentChain, inputs: Float | DeviceArray) -> None:
        self._chain, self._inputs, self._rows = chain, inputs, len(inputs)
        self._idle = True
        self._read: dict[int, Float] = {}  # logits that have been asked for already, by exit

    def __enter__(self) -> Self:
        self._chain.lock.acquire()
        try:
            self._upload()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def stage(self, position: int) -> None:
        """Queue it."""
        self._idle = False
        self._chain.stage(position, self._rows)

    def signals(self, position: int, temperature: float) -> Signals:
        """From the graph, if it computes them at this temperature: one copy, and one wait."""
        reading, exit_ = self._chain.memory.signals[position], self._chain.exits[position]
        if reading is None or temperature != 1:
            logits = self.logits(position)
            self.finish()
            return self._chain.task.signals(self.own(logits), temperature)
        self._queue(reading)
        self.finish()
        return _signals(self._chain.task, exit_, reading, self._rows)

    def logits(self, position: int) -> Float:
        """Queue a copy."""
        if position not in self._read:
            reading = self._chain.memory.logits[position]
            self._queue(reading)
            (whole,) = reading.arrays.values()
            self._read[position] = whole[: self._rows]
        return self._read[position]

    def compact(self, position: int, moves: Moves) -> None:
        """Queue the copies."""
        self._idle = False
        self._chain.compact(position, moves)
        self._rows = moves.rows

    def finish(self) -> None:
        """Wait for the queue."""
        if not self._idle:
            self._chain.device.finish()
            self._idle = True

    def own(self, logits: Float) -> Float:
        """A copy out of the pinned memory."""
        return np.array(logits, np.float32)

    def _queue(self, reading: Reading) -> None:
        self._idle = False
        self._chain.device.download(reading.host[: reading.size(self._rows)], reading.start)

    def _upload(self) -> None:
        device, (address, port) = self._chain.device, self._chain.memory.places[self._chain.input]
        self._idle = False
        if isinstance(self._inputs, DeviceArray):
            device.after(self._inputs)
            device.copy(address, self._inputs.address, self._rows * port.row_bytes)
        else:
            staged = self._chain.memory.staging[: self._rows]
            staged[...] = self._inputs
            device.upload(address, staged)

    def _leave(self) -> None:
        """The queue must be empty before others use the memory, also where something failed."""
        try:
            self.finish()
        finally:
            self._chain.lock.release()


def _signals(task: Task, exit_: Exit, reading: Reading, rows: int) -> Signals:
    assert exit_.signals is not None, "there is a reading"
    values: npt.NDArray[Any] = reading.arrays[exit_.signals.values][:rows]
    decision: npt.NDArray[Any] = reading.arrays[exit_.signals.decision][:rows]
    # FP16 engines may answer in float16, and TensorRT 8 in int32; arrays of the right type are not copied
    values, decision = values.astype(np.float32, copy=False), decision.astype(np.int64, copy=False)
    return Signals({name: values[:, at] for at, name in enumerate(task.signal_names)}, decision)
