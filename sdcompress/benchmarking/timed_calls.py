"""Time calls in a closed loop, in interleaved rounds, so that changes of the machine affect all of them.

A clock is read around the call alone: that on the wall, or the processor time of the thread. No sample is trimmed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from sdcompress.progress import Progress
from sdcompress.tasks import Array

if TYPE_CHECKING:
    from sdcompress.modalities import Inputs
    from sdcompress.runtime.engine import Engine, Prediction

__all__ = [
    "Clock",
    "TimedCall",
    "TimedPreparation",
    "clock_of",
    "interleaved",
    "no_collection",
    "split",
    "time_interleaved",
]

Measured = TypeVar("Measured")
Clock = Callable[[], int]  # ns

_WARMUP_CALLS = 10
_BATCHES = 4  # distinct inputs of an engine, so that no call reuses those of the call before


def clock_of(name: Literal["wall", "thread"]) -> Clock:
    """Return the clock of ``Bench.clock``."""
    return {"wall": perf_counter_ns, "thread": thread_time_ns}[name]


@contextmanager
def no_collection() -> Iterator[None]:
    """Disable the garbage collector of Python in the block, after one collection."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class TimedCall:
    """A call that is timed in rounds over the same inputs. It keeps times, exits and predictions.

    Args:
        call: the timed function.
        batches: preallocated inputs, B rows each, used in a cycle.
        clock: that is read; default: that on the wall.
    """

    def __init__(self, call: Callable[[Any], Prediction], batches: Sequence[Any], clock: Clock | None = None) -> None:
        self._clock = clock or clock_of("wall")
        self._call = call
        self._batches = batches
        self._place = 0
        self._exits: list[npt.NDArray[np.int64]] = []
        self._decisions: list[Array] = []
        self.rounds: list[npt.NDArray[np.float64]] = []

    def warm_up(self, least_ms: float) -> None:
        """Make at least ten calls for at least ``least_ms``; nothing is recorded."""
        deadline = self._clock() + int(least_ms * 1e6)
        done = 0
        while done < _WARMUP_CALLS or self._clock() < deadline:
            self._call(self._batches[done % len(self._batches)])
            done += 1

    def measure(self, seconds: float) -> None:
        """Add one round: all calls that start within ``seconds`` of the clock, at least one.

        One untimed call on the previous input comes first, because the caches hold data of the engine that ran before.
        """
        durations_ns: list[int] = []
        self._call(self._batches[self._place - 1])
        deadline = self._clock() + int(seconds * 1e9)
        end = 0
        while end < deadline:
            inputs = self._batches[self._place]
            start = self._clock()
            prediction = self._call(inputs)
            end = self._clock()
            durations_ns.append(end - start)
            self._keep(prediction)
        self.rounds.append(np.asarray(durations_ns, dtype=np.float64) / 1e6)

    def _keep(self, prediction: Prediction) -> None:
        self._exits.append(prediction.exit_index)
        if len(self._decisions) < len(self._batches):
            self._decisions.append(prediction.decision)
        self._place = (self._place + 1) % len(self._batches)

    @property
    def ms(self) -> npt.NDArray[np.float64]:
        """Return the times of all measured calls in order, ms, [calls]."""
        return np.concatenate(self.rounds)

    @property
    def exits_of_inputs(self) -> npt.NDArray[np.int64]:
        """Return the exit of each sample of the first pass over the inputs, [calls of the first pass, B]."""
        return np.stack(self._exits[: len(self._batches)])

    @property
    def input_index(self) -> npt.NDArray[np.int64]:
        """Return the place of each measured call's inputs in the cycle, [calls]."""
        return np.arange(sum(map(len, self.rounds))) % len(self._batches)

    @property
    def exit_index(self) -> npt.NDArray[np.int64]:
        """Return the exit of each sample of each measured call, [calls, B]."""
        return np.stack(self._exits)

    @property
    def first_decisions(self) -> Array:
        """Return the decisions in the first pass over the inputs, [calls of the first pass, B, ...]."""
        return np.stack(self._decisions)


class TimedPreparation(TimedCall):
    """The preparation of inputs from raw examples, timed like a call. Its results are discarded.

    Args:
        prepare: the timed function.
        batches: raw examples, as that function takes them.
        clock: that is read; default: that on the wall.
    """

    def __init__(self, prepare: Callable[[Any], Any], batches: Sequence[Any], clock: Clock | None = None) -> None:
        super().__init__(prepare, batches, clock)

    def _keep(self, _inputs: Any) -> None:
        self._place = (self._place + 1) % len(self._batches)


def split(inputs: Inputs, batch: int) -> list[Inputs]:
    """Split inputs into views of full batches; a partial batch at the end is dropped."""
    return [inputs[start : start + batch] for start in range(0, len(inputs) - batch + 1, batch)]


def interleaved(measured: Sequence[Measured], rounds: int, progress: Progress | None = None) -> Iterator[Measured]:
    """Yield everything once in each round, in alternating direction: A B, B A, A B ...

    Args:
        measured: what is timed.
        rounds: number of rounds.
        progress: called with (rounds done, all rounds).
    """
    for done in range(rounds):
        yield from measured if done % 2 == 0 else measured[::-1]
        if progress:
            progress(done + 1, rounds)


def time_interleaved(
    engines: Sequence[Engine],
    inputs: Inputs,
    batch: int,
    *,
    rounds: int,
    seconds: float,
    warm_up_ms: float,
    progress: Progress | None = None,
) -> list[TimedCall]:
    """Time all engines up to their last exit, host to host, in interleaved rounds.

    Args:
        engines: E of them.
        inputs: N of them, repeated as needed.
        batch: samples in a call.
        rounds: number of rounds, at least 2.
        seconds: of one engine in one round, at least one call.
        warm_up_ms: of each engine, at least ten calls.
        progress: called with (rounds done, all rounds).

    Returns:
        E timed calls with the times of every round.
    """
    batches = split(inputs[np.arange(_BATCHES * batch) % len(inputs)], batch)
    timed_calls = [TimedCall(partial(engine.forced, exit=-1), batches) for engine in engines]
    for timed_call in timed_calls:
        timed_call.warm_up(warm_up_ms)
    with no_collection():
        for timed_call in interleaved(timed_calls, rounds, progress):
            timed_call.measure(seconds)
    return timed_calls
