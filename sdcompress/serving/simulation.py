"""Run the scheduler in simulated time: the decisions are those of the server, and batches take their predicted time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import Float
from sdcompress.runtime.stepwise import Carried, StageResult
from sdcompress.schema.capacity import LoadPoint
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.errors import OverloadedError
from sdcompress.serving.job import Job
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.scheduler import Batch, Scheduler

__all__ = ["SimulatedClock", "Simulation", "answer_times"]

_HTTP_BUSY = 0.95  # share of its time that the HTTP side may be busy: nothing bounds the queue before it
_EXIT = "exit"  # the one tensor that is carried: the exit that a row takes


class SimulatedClock:
    """Seconds that only a simulation moves."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time now."""
        return self.now


def answer_times(
    scheduler: Scheduler,
    clock: SimulatedClock,
    arrivals: npt.NDArray[np.float64],
    job_of: Callable[[int], Job],
    run: Callable[[Batch], tuple[StageResult, float]],
) -> npt.NDArray[np.float64]:
    """Return when each request is answered, in simulated seconds; NaN if it is refused.

    Args:
        scheduler: with this clock, and nothing in its queue.
        clock: of the scheduler.
        arrivals: when the requests come, rising.
        job_of: the index of a request -> its job; the clock stands at its arrival.
        run: a batch -> its result, and the seconds that it takes.
    """
    answered, numbers, at = np.full(len(arrivals), np.nan), dict[Job, int](), 0
    while True:
        batch = scheduler.next_batch()
        if batch is None and at == len(arrivals):
            return answered
        end = arrivals[at] if batch is None else 0.0
        if batch is not None:
            result, took = run(batch)
            end = clock.now + took
        while at < len(arrivals) and arrivals[at] <= end:
            clock.now = float(arrivals[at])
            job = job_of(at)
            with suppress(OverloadedError):
                scheduler.submit(job)
                numbers[job] = at
            at += 1
        clock.now = float(end)
        if batch is not None:
            scheduler.finish(batch, result, took)
        for job in scheduler.ended():
            answered[numbers.pop(job)] = clock.now


@dataclass(frozen=True)
class Simulation:
    """One server: its HTTP side, which takes one request after the other, then one worker. Requests have one row.

    Attributes:
        costs: of the stages; it is not changed.
        shares: of the requests that exit at each exit, [E].
        options: latency bound and queue.
        request_s: seconds of the HTTP side for each request.
        size: of a row, see ``runtime.cost_model.sample_size``.
    """

    costs: StageCosts
    shares: Sequence[float]
    options: ServiceOptions
    request_s: float = 0.0
    size: int = 1

    def run(self, requests_per_s: float, requests: int, seed: int = 0) -> LoadPoint:
        """Return what clients see of requests at random times (Poisson).

        Args:
            requests_per_s: the load.
            requests: how many.
            seed: of times and exits.
        """
        rng = np.random.default_rng(seed)
        sent = np.cumsum(rng.exponential(1 / requests_per_s, requests))
        read = _one_after_the_other(sent, self.request_s)
        exits = rng.choice(len(self.shares), requests, p=np.asarray(self.shares) / sum(self.shares))
        answered, busy, batches, rows = self._answered(read, exits)
        latencies = answered - sent
        latencies, span = latencies[np.isfinite(latencies)], float(np.nanmax([*answered, sent[-1]]))
        p50, p99 = (1000 * np.percentile(latencies, (50, 99))).tolist() if len(latencies) else (None, None)
        return LoadPoint(
            requests_per_s=requests_per_s,
            good_per_s=float((latencies <= self.options.latency_bound).sum()) / span,
            refused=1 - len(latencies) / requests,
            p50_ms=p50,
            p99_ms=p99,
            busy=min(1.0, busy / span),
            batch_rows=rows / max(batches, 1),
        )

    def limit(self, requests: int, refused: float = 0.01, steps: int = 7) -> float:
        """Return the largest load whose p99 keeps the latency bound while at most a share is refused.

        Args:
            requests: of each trial.
            refused: the share.
            steps: of the bisection, below the load that the worker could take with nothing but full batches.
        """
        low, high = 0.0, self.peak
        for _ in range(steps):
            middle = (low + high) / 2
            point = self.run(middle, requests)
            kept = point.p99_ms is not None and point.p99_ms <= 1000 * self.options.latency_bound
            low, high = (middle, high) if kept and point.refused <= refused else (low, middle)
        return low

    @property
    def peak(self) -> float:
        """Return the requests per second that full batches, or the HTTP side, can do at most."""
        reaching = np.cumsum(np.asarray(self.shares)[::-1])[::-1] / sum(self.shares)
        stages = range(self.costs.stages)
        most = [self.costs.most_rows(stage, self.size) for stage in stages]
        row_s = sum(
            reaching[stage] * self.costs.seconds(stage, most[stage], self.size) / most[stage] for stage in stages
        )
        return float(1 / max(row_s, self.request_s / _HTTP_BUSY))

    def _answered(
        self, read: npt.NDArray[np.float64], exits: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], float, int, int]:
        """Return when each request is answered, NaN if it is refused; the busy seconds, the batches and their rows."""
        clock, busy, batches, rows = SimulatedClock(), 0.0, 0, 0
        scheduler = Scheduler(deepcopy(self.costs), most_rows=self.options.queue_rows, clock=clock)

        def job_of(at: int) -> Job:
            return Job(_carried(exits[at : at + 1]), clock.now + self.options.latency_bound, size=self.size)

        def run(batch: Batch) -> tuple[StageResult, float]:
            nonlocal busy, batches, rows
            took = self.costs.seconds(batch.stage, len(batch), batch.size)
            busy, batches, rows = busy + took, batches + 1, rows + len(batch)
            return self._result(batch), took

        return answer_times(scheduler, clock, read, job_of, run), busy, batches, rows

    def _result(self, batch: Batch) -> StageResult:
        carried = batch.carried()
        outputs: Float = carried.tensors[_EXIT].astype(np.float32)
        return StageResult(outputs, None, carried.tensors[_EXIT][:, 0] <= batch.stage, carried)


def _carried(exit_index: npt.NDArray[np.int64]) -> Carried:
    return Carried({_EXIT: exit_index[:, None]})


def _one_after_the_other(sent: npt.NDArray[np.float64], seconds: float) -> npt.NDArray[np.float64]:
    """Return when each request is read, if one takes so long and they wait for each other."""
    done = seconds * np.arange(1, len(sent) + 1, dtype=np.float64)
    return (done + np.maximum.accumulate(sent - done + seconds)).astype(np.float64)
