"""The clock: closed loop (submit, wait, next), ``perf_counter_ns`` around the call alone, nothing trimmed."""

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

__all__ = ["TimedCall", "TimedPreparation", "no_collection"]

_WARMUP_CALLS = 10


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the measured loops; it runs once before."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class TimedCall:
    """One call, measured in rounds over the same inputs; keeps its place in them, its times and its answers.

    Args:
        call: what is timed.
        batches: preallocated inputs, each [B, C, H, W], used in order and again from the start.
    """

    def __init__(self, call: Callable[[Any], Prediction], batches: Sequence[Any]) -> None:
        self._call = call
        self._batches = batches
        self._place = 0
        self._exits: list[npt.NDArray[np.int64]] = []
        self._classes: list[npt.NDArray[np.int64]] = []
        self.rounds: list[npt.NDArray[np.float64]] = []

    def warm_up(self, least_ms: float) -> None:
        """Call until both ``least_ms`` have passed and ten calls are done; nothing is kept."""
        deadline = perf_counter_ns() + int(least_ms * 1e6)
        done = 0
        while done < _WARMUP_CALLS or perf_counter_ns() < deadline:
            self._call(self._batches[done % len(self._batches)])
            done += 1

    def measure(self, seconds: float) -> None:
        """Add one round: as many calls as begin within ``seconds`` of wall-clock time, at least one.

        One untimed call on the previous input goes before: after another engine ran, the caches hold its data.
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
        if len(self._classes) < len(self._batches):
            self._classes.append(prediction.logits.argmax(axis=1))
        self._place = (self._place + 1) % len(self._batches)

    @property
    def ms(self) -> npt.NDArray[np.float64]:
        """Every measured call in order, ms, shape [calls]."""
        return np.concatenate(self.rounds)

    @property
    def exit_index(self) -> npt.NDArray[np.int64]:
        """The exit at which each sample of each measured call left, shape [calls, B]."""
        return np.stack(self._exits)

    @property
    def first_answers(self) -> npt.NDArray[np.int64]:
        """The classes given in the first pass over the inputs, shape [calls of the first pass, B]."""
        return np.stack(self._classes)


class TimedPreparation(TimedCall):
    """The way from images to inputs, timed as a call is; what it makes is thrown away.

    Args:
        prepare: what is timed.
        batches: images, as ``Engine.preprocess`` takes them.
    """

    def __init__(self, prepare: Callable[[Any], Any], batches: Sequence[Any]) -> None:
        super().__init__(prepare, batches)

    def _keep(self, _inputs: Any) -> None:
        self._place = (self._place + 1) % len(self._batches)
