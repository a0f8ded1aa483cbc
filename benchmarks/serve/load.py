"""Load a way of serving, in this process: with so many requests under way, or as they arrive."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

import numpy as np

from sdcompress.runtime.stepwise import Carried
from sdcompress.serving.errors import OverloadedError
from sdcompress.serving.job import Job

FAR = 3600.0  # s


@dataclass
class Load:
    """Requests of one row each, drawn from samples."""

    server: Any
    inputs: Sequence[Mapping[str, np.ndarray]]  # of one row each
    shares: Sequence[float]  # how often each is sent
    bound: float = FAR
    covered: bool = False  # by a certificate
    times: list[tuple[float, float]] = field(default_factory=list)  # when a request was sent and answered
    rejects: list[float] = field(default_factory=list)  # seconds that it took to refuse one
    wrong: int = 0

    def __post_init__(self) -> None:
        self._rng, self._lock = np.random.default_rng(0), Lock()

    def send(self, then: Callable[[], None] = lambda: None) -> bool:
        """Send one request, and return whether it was accepted; ``then`` is called when it is answered."""
        with self._lock:
            at = int(self._rng.choice(len(self.shares), p=self.shares))
        sent = time.monotonic()

        def on_end(job: Job) -> None:
            with self._lock:
                self.times.append((sent, time.monotonic()))
                self.wrong += job.error is not None
            then()

        try:
            job = Job(Carried(self.inputs[at]), bound=sent + self.bound, on_end=on_end, covered=self.covered)
            self.server.submit(job)
        except OverloadedError:
            self.rejects.append(time.monotonic() - sent)
            return False
        return True

    def closed(self, under_way: int, seconds: float) -> dict[str, float]:
        """Keep so many requests under way."""
        end = time.monotonic() + seconds
        left, done = [under_way], Event()

        def again() -> None:
            if time.monotonic() < end:
                self.send(again)
                return
            with self._lock:
                left[0] -= 1
                if left[0] == 0:
                    done.set()

        for _ in range(under_way):
            self.send(again)
        done.wait()
        return self.figures(end - seconds, end)

    def open(self, rate: float, seconds: float) -> dict[str, float]:
        """Send requests at random times (Poisson), whether or not earlier ones are answered."""
        begin = time.monotonic()
        due = begin
        while due < begin + seconds:
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            self.send()
            due += float(self._rng.exponential(1 / rate))
        self.server.stop()
        return self.figures(begin, begin + seconds)

    def late(self, rate: float, seconds: float) -> float:
        """Send requests as ``open`` does, and return the share that was not answered within the bound."""
        self.open(rate, seconds)
        good = sum(after - before <= self.bound for before, after in self.times)
        return 1 - good / max(1, len(self.times) + len(self.rejects))

    def figures(self, begin: float, end: float) -> dict[str, float]:
        """Return rates of the time between, and percentiles of all requests."""
        answered = np.array([after - before for before, after in self.times if begin <= after <= end])
        late = np.array([after - before for before, after in self.times])
        rejects = {"rejects": len(self.rejects), "reject_ms_p99": _ms(self.rejects, 99)} if self.rejects else {}
        return {
            "rows_per_s": round(len(answered) / (end - begin), 1),
            "good_rows_per_s": round(float((answered <= self.bound).sum()) / (end - begin), 1),
            "p50_ms": _ms(late, 50), "p99_ms": _ms(late, 99), **rejects,
        }  # fmt: skip


def _ms(seconds: Any, percentile: float) -> float:
    return round(1000 * float(np.percentile(seconds, percentile)), 3) if len(seconds) else float("nan")
