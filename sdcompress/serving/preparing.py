"""Prepare raw examples on threads, and predict how long that takes: the latency bound counts it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import TypeVar

from sdcompress.serving.protocol.tensors import Tensor

__all__ = ["Preparing", "PreparingTime"]

_R = TypeVar("_R")

_THREADS = 2
_NEWEST = 0.1  # weight of one measurement
_BYTES_OF_A_UNIT = 2**16  # decoding a row and so many bytes of it takes about as long as resizing and scaling one


class PreparingTime:
    """The seconds that raw examples of one model take, learnt from those before; 0 until the first."""

    def __init__(self) -> None:
        self._seconds_per_unit = 0.0

    def predicted(self, raw: Tensor) -> float:
        """Return the predicted seconds of one thread."""
        return self._seconds_per_unit * _units(raw)

    def observe(self, raw: Tensor, seconds: float) -> None:
        """Learn from what was prepared."""
        each = seconds / _units(raw)
        self._seconds_per_unit += (_NEWEST if self._seconds_per_unit else 1.0) * (each - self._seconds_per_unit)


class Preparing:
    """The threads of a service that decode images and tokenise texts, and the work that waits for them."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_THREADS, "prepare")
        self._lock, self._waiting, self._waiting_s = Lock(), 0, 0.0

    @property
    def wait_s(self) -> float:
        """Return the predicted seconds until new work begins."""
        return self._waiting_s / _THREADS

    def submit(self, prepare: Callable[[], _R], raw: Tensor, time: PreparingTime) -> Future[_R]:
        """Return the future of a preparation; cancelling it takes it out of the queue.

        Args:
            prepare: prepares the raw examples.
            raw: these.
            time: of the model; it learns.
        """
        work = time.predicted(raw)

        def timed() -> _R:
            start = perf_counter()
            prepared = prepare()  # what is refused takes another time, and teaches nothing
            time.observe(raw, perf_counter() - start)
            return prepared

        with self._lock:
            self._waiting += 1
            self._waiting_s += work
        future = self._executor.submit(timed)
        future.add_done_callback(lambda _: self._done(work))
        return future

    def stop(self) -> None:
        """Finish what has begun, and end the threads."""
        self._executor.shutdown()

    def _done(self, work: float) -> None:
        with self._lock:
            self._waiting -= 1
            # what rounding leaves of a sum would be a wait for ever, and an idle service would refuse long requests
            self._waiting_s = max(0.0, self._waiting_s - work) if self._waiting else 0.0


def _units(raw: Tensor) -> float:
    size = raw.data.nbytes if not isinstance(raw.data, tuple) else sum(map(len, raw.data))
    return raw.shape[0] + size / _BYTES_OF_A_UNIT
