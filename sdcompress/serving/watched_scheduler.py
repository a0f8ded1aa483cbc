"""Schedule a model with a certificate: levels under pressure, the whole network after drift, audits when there is time.

An audit never makes an accepted request late: a batch of audits takes at most a tenth of the latency bound, of which
admission leaves four tenths free. Audits run when nothing waits. Under lasting load they get a fiftieth of the time,
and only while every waiting request can afford it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sdcompress.policies import compared_thresholds
from sdcompress.runtime.drift import DriftMonitor
from sdcompress.runtime.levels import Level
from sdcompress.runtime.stepwise import StageResult
from sdcompress.serving.audits import AuditBatch, Audits
from sdcompress.serving.brown_out import BrownOut
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.in_order import InOrder
from sdcompress.serving.job import Job
from sdcompress.serving.scheduler import FILLED, Batch, Clock, Part, Scheduler

__all__ = ["WatchedScheduler"]

_LONGEST = 0.1  # of the latency bound, for one batch of audits
_SHARE = 0.02  # of the time of batches, for audits while requests wait
_MOST_CREDIT = 5  # longest batches of audits that are saved up
_NEWEST = 0.1  # weight of the rows of one request


class WatchedScheduler(Scheduler):
    """A scheduler of one model whose certificate covers what runs.

    Args:
        costs: of the stages.
        most_rows: rows of unfinished requests that it accepts.
        clock: seconds that rise.
        levels: certified ones; new requests get the first, unless ``brown_out`` says otherwise.
        latency_bound: in seconds.
        monitor: gets the exits of all rows that the policy alone decides; None: nothing is watched.
        audits: runs some of them to the last exit; None: there are none.
        brown_out: steps down the levels under pressure; None: nobody does.
        fall_back: whether new requests run through the whole network after an alarm.
        on_alarm: called once for each alarm.
        on_level: called with the level whenever it changes.

    Attributes:
        answered_rows: of each level, those that the policy alone decided.
        fallen_back: whether new requests run through the whole network.
    """

    def __init__(
        self,
        costs: StageCosts,
        *,
        most_rows: int,
        clock: Clock,
        levels: tuple[Level, ...],
        latency_bound: float,
        monitor: DriftMonitor | None = None,
        audits: Audits | None = None,
        brown_out: BrownOut | None = None,
        fall_back: bool = True,
        on_alarm: Callable[[], None] = lambda: None,
        on_level: Callable[[int], None] = lambda _: None,
    ) -> None:
        super().__init__(costs, most_rows=most_rows, clock=clock)
        self._levels, self._monitor, self._audits, self._brown_out = levels, monitor, audits, brown_out
        self._thresholds = [compared_thresholds(level.thresholds) for level in levels]
        self._never = compared_thresholds((math.inf,) * (costs.stages - 1))
        self._longest, self._fall_back = _LONGEST * latency_bound, fall_back
        self._latency_bound, self._usual_rows = latency_bound, 1.0
        self._auditing: tuple[Batch, float] | None = None  # and when it should end
        self._credit, self._closed = 0.0, False
        self._on_alarm, self._on_level, self._alarmed = on_alarm, on_level, False
        self._exits = InOrder[Job, tuple[npt.NDArray[np.int64], int]](self._count_exits)
        self.answered_rows = [0] * len(levels)
        self.fallen_back = False

    @property
    def level(self) -> int:
        """Return the index of the level that new requests get."""
        return self._brown_out.level if self._brown_out and not self.fallen_back else 0

    def reset(self) -> None:
        """End a fall-back, and forget the evidence of drift."""
        if self._monitor is not None:
            self._monitor.reset()
        self._alarmed = False
        if self.fallen_back:
            self.fallen_back = False
            self._expect_level()

    def close(self) -> None:
        """Begin no further audit."""
        self._closed = True

    def reserve(self, rows: int, *, bound: float, wait_s: float, prepare_s: float) -> None:
        """Accept a request whose inputs are prepared first; see ``Scheduler.reserve``."""
        self._take_pressure()
        super().reserve(rows, bound=bound, wait_s=wait_s, prepare_s=prepare_s)

    def submit(self, job: Job, *, reserved: bool = False) -> None:
        """Accept a request, at the level of this moment; see ``Scheduler.submit``."""
        if not reserved:
            self._take_pressure()
        super().submit(job, reserved=reserved)
        self._usual_rows += _NEWEST * (job.rows - self._usual_rows)
        if self.fallen_back:
            job.fallen_back, job.thresholds = True, self._never  # a deadline can still end it early
        elif job.covered:
            job.level = self.level
            job.thresholds = self._thresholds[job.level] if job.level else None
            self._exits.announce(job)
            if self._audits is not None and not self._closed:
                self._audits.choose(job)

    def next_batch(self) -> Batch | None:
        """Return what to run now: requests, or audits if there is time for them."""
        now = self._clock()
        if (batch := self._next_audit(now)) is not None:
            return batch
        return super().next_batch()

    def finish(self, batch: Batch, result: StageResult, seconds: float) -> None:
        """Take the result of a batch; see ``Scheduler.finish``."""
        if self._auditing is None or batch is not self._auditing[0]:
            super().finish(batch, result, seconds)
            self._credit = min(self._credit + _SHARE * seconds, _MOST_CREDIT * self._longest)
            return
        assert self._audits is not None
        self._auditing, self._credit = None, max(0.0, self._credit - seconds)
        self._audits.finish(result)
        self._look()

    def fail(self, batch: Batch, error: Exception) -> None:
        """Take the error of a batch; see ``Scheduler.fail``."""
        if self._auditing is None or batch is not self._auditing[0]:
            super().fail(batch, error)
            return
        assert self._audits is not None
        self._auditing = None
        self._audits.fail()

    def cancel(self, job: Job) -> None:
        """Forget a request."""
        over = job.finished or job.error is not None  # it ended while its client gave it up, and is counted
        super().cancel(job)
        if not over:
            self._count(job)

    def ended(self) -> list[Job]:
        """Return the requests that have finished or failed since the last call, once they are counted."""
        ended = super().ended()
        for job in ended:
            self._count(job)
        self._look()
        return ended

    def _count(self, job: Job) -> None:
        """Take the exits of a request that is over; of rows that have none nothing is known."""
        if job.covered and not job.fallen_back:
            self.answered_rows[job.level] += int(np.count_nonzero(job.exit_index >= 0))
        self._exits.settle(job, (job.exit_index, job.level))
        if self._audits is not None:
            self._audits.answered(job)

    def _count_exits(self, exits: tuple[npt.NDArray[np.int64], int]) -> None:
        if self._monitor is not None:
            self._monitor.answered(*exits)

    def _look(self) -> None:
        if self._monitor is None or self._monitor.alarm is None or self._alarmed:
            return
        self._alarmed, self.fallen_back = True, self._fall_back
        if self.fallen_back:
            self._costs.expect((0.0,) * (self._costs.stages - 1) + (1.0,))
        self._on_alarm()

    def _take_pressure(self) -> None:
        """Let the level follow the queue as a usual request finds it.

        What this request asks for is left out: a client that gives little time, or sends very many rows, would lower
        the level of all others, and a row whose own size decides its level is no random one of that level.
        """
        if self._brown_out is None:
            return
        now = self._clock()
        usual = self._costs.expected_alone(max(1, round(self._usual_rows)), round(self._usual_size))
        room = FILLED * self._latency_bound - usual
        wait = self._backlog(now) if self.rows else 0.0
        pressure = wait / room if room > 0 else float(wait > 0)
        if self._brown_out.update(pressure, now) and not self.fallen_back:
            self._expect_level()
            self._on_level(self.level)

    def _expect_level(self) -> None:
        if shares := self._levels[self.level].shares:
            self._costs.expect(shares)

    def _backlog(self, now: float) -> float:
        auditing = max(0.0, self._auditing[1] - now) if self._auditing else 0.0
        return auditing + super()._backlog(now)

    def _next_audit(self, now: float) -> Batch | None:
        if self._audits is None or self._closed:
            return None
        audit = self._audits.next_batch(self._most_audits)
        if audit is None:
            return None
        seconds = self._costs.seconds(audit.stage, len(audit), audit.size)
        if self._lanes and not (seconds <= self._credit and self._can_afford(seconds, now)):
            return None
        batch = _batch_of(audit)
        self._auditing = batch, now + seconds
        return batch

    def _most_audits(self, size: int) -> int:
        """Return how many rows may run together, so that no stage of them takes too long; 0: not even one."""
        costs = self._costs
        most = max(costs.most_rows(stage, size) for stage in range(costs.stages))
        while most and max(costs.seconds(stage, most, size) for stage in range(costs.stages)) > self._longest:
            most //= 2
        return most

    def _can_afford(self, seconds: float, now: float) -> bool:
        """Return whether every lane still has time for another batch after the audits."""
        costs = self._costs
        for lane in self._lanes.values():
            rows = min(lane.rows, costs.most_rows(lane.stage, lane.size))
            left = lane.parts[0].bound - now - costs.to_the_end(lane.stage, rows, lane.size)
            if left < seconds + 2 * costs.seconds(lane.stage, rows, lane.size):
                return False
        return True


def _batch_of(audit: AuditBatch) -> Batch:
    rows = np.arange(len(audit))
    job = Job(audit.carried, bound=float("inf"))
    return Batch(audit.stage, (Part(job.bound, 0, job, audit.stage, audit.carried, rows, rows),), audit.size)
