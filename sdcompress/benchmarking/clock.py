"""Time calls in a closed loop with ``perf_counter_ns`` around the call alone. No sample is trimmed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sdcompress.runtime.engine import Prediction
from sdcompress.tasks import Array

__all__ = ["TimedCall", "TimedPreparation", "no_collection"]

_WARMUP_CALLS = 10


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
    """

    def __init__(self, call: Callable[[Any], Prediction], batches: Sequence[Any]) -> None:
        self._call = call
        self._batches = batches
        self._place = 0
        self._exits: list[npt.NDArray[np.int64]] = []
        self._decisions: list[Array] = []
        self.rounds: list[npt.NDArray[np.float64]] = []

    def warm_up(self, least_ms: float) -> None:
        """Make at least ten calls for at least ``least_ms``; nothing is recorded."""
        deadline = perf_counter_ns() + int(least_ms * 1e6)
        done = 0
        while done < _WARMUP_CALLS or perf_counter_ns() < deadline:
            self._call(self._batches[done % len(self._batches)])
            done += 1

    def measure(self, seconds: float) -> None:
        """Add one round: all calls that start within ``seconds`` of wall-clock time, at least one.

        One untimed call on the previous input comes first, because the caches hold data of the engine that ran before.
        """
        durations_ns: list[int] = []
        self._call(self._batches[self._place - 1])
        deadline = perf_counter_ns() + int(seconds * 1e9)
        end = 0
        while end < deadline:
            inputs = self._batches[self._place]
            start = perf_counter_ns()
            prediction = self._call(inputs)
            end = perf_counter_ns()
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
        """Times of all measured calls in order, ms, [calls]."""
        return np.concatenate(self.rounds)

    @property
    def exit_index(self) -> npt.NDArray[np.int64]:
        """Exit of each sample of each measured call, [calls, B]."""
        return np.stack(self._exits)

    @property
    def first_decisions(self) -> Array:
        """Decisions in the first pass over the inputs, [calls of the first pass, B, ...]."""
        return np.stack(self._decisions)


class TimedPreparation(TimedCall):
    """The preparation of inputs from raw examples, timed like a call. Its results are discarded.

    Args:
        prepare: the timed function.
        batches: raw examples, as that function takes them.
    """

    def __init__(self, prepare: Callable[[Any], Any], batches: Sequence[Any]) -> None:
        super().__init__(prepare, batches)

    def _keep(self, _inputs: Any) -> None:
        self._place = (self._place + 1) % len(self._batches)
