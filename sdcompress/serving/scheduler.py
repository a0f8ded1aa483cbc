"""Choose what runs next: batches that form anew at every stage, of the rows of all requests that wait there.

A server without this runs a batch to its last exit, or until its hardest row is done. Here rows that go on past an
exit wait at the next stage for rows of other requests, so that deep stages get full batches too.

What runs next is decided each time the worker is free. It never waits for rows that may come: while a batch runs,
the next one gathers by itself, and a lone request on an idle server runs at once.

1. Rows whose time is short go first, the earliest bound before the others: those whose slack, the time to the bound
   less what is left of the network, allows no other batch in between. The order among them is not that of the slack:
   it takes for granted that every row runs to the last exit, and new rows would overtake older ones that are deep.
   Serving the earliest bound first in general would run deep stages for single rows and lose the throughput that
   keeps bounds in the first place.
2. Otherwise the deepest stage that has a full batch, or nearly: it ends requests, frees their memory, and nothing is
   gained by waiting. Where large batches save nothing, as on one CPU core, every batch is full, and this is the
   shortest remaining work first, which has the least mean latency.
3. Otherwise the stage whose batch is nearest to a full one; the rows that it sends on fill the next stage.

Within a stage the earliest bound goes first, which is the order of arrival. Rows of one shape alone share a batch.

A deadline changes when rows exit, never when they run. A client chooses it freely: if it moved rows forward, all would
ask for the shortest one, and whoever asks for none would miss the bound that admission has promised. A deadline that
the order of arrival keeps needs no priority; any other one could only be kept at the cost of requests that came first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import accumulate, count

import numpy as np

from sdcompress.policies._base import Float
from sdcompress.runtime.stepwise import Carried, Rows, StageResult
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.errors import OverloadedError
from sdcompress.serving.job import Job

__all__ = ["FILLED", "Batch", "Clock", "Part", "Scheduler"]

Clock = Callable[[], float]

_NEARLY_FULL = 0.95  # efficiency from which a batch counts as full
# share of the time to the bound that accepted work may fill: in a queue up to the bound every row is urgent, rule 1
# takes deep stages apart, and what is lost by that makes all of them late
FILLED = 0.6
_NEWEST = 0.1  # weight of the size of one request


@dataclass(order=True)
class Part:
    """Rows of one request that wait at one stage; ordered by their bound.

    Attributes:
        bound: of the request.
        number: of its arrival at the stage; equal bounds go first come, first served.
        job: the request.
        stage: at which they wait.
        carried: of a batch that they were in.
        rows: which of its rows they are.
        places: which rows of the request they are.
        outputs: of the last exit that they may take, for a deadline; None: they may take none yet.
        scores: at that exit.
        alone: whether they share no batch, because one that they were in failed.
    """

    bound: float
    number: int
    job: Job = field(compare=False)
    stage: int = field(compare=False)
    carried: Carried = field(compare=False)
    rows: Rows = field(compare=False)
    places: Rows = field(compare=False)
    outputs: Float | None = field(default=None, compare=False)
    scores: Float | None = field(default=None, compare=False)
    alone: bool = field(default=False, compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    def chosen(self, rows: slice) -> Part:
        """Return some of the rows."""
        return Part(
            self.bound,
            self.number,
            self.job,
            self.stage,
            self.carried,
            self.rows[rows],
            self.places[rows],
            None if self.outputs is None else self.outputs[rows],
            None if self.scores is None else self.scores[rows],
            self.alone,
        )


_LaneKey = tuple[int, object, int]  # stage, shape of a row, and a request that has to run alone


class _Lane:
    """Parts that may share a batch, the earliest bound first."""

    def __init__(self, stage: int, size: int) -> None:
        self.stage, self.size, self.rows = stage, size, 0
        self.parts: list[Part] = []

    def push(self, part: Part) -> None:
        heappush(self.parts, part)
        self.rows += len(part)

    def take(self, most: int) -> list[Part]:
        """Remove parts of at most so many rows; the last one may be split."""
        taken: list[Part] = []
        while self.parts and most > 0:
            part = heappop(self.parts)
            if len(part) > most:
                heappush(self.parts, part.chosen(slice(most, None)))
                part = part.chosen(slice(most))
            taken.append(part)
            most -= len(part)
            self.rows -= len(part)
        return taken

    def remove(self, unwanted: Callable[[Part], bool]) -> list[Part]:
        removed = [part for part in self.parts if unwanted(part)]
        if removed:
            self.parts = [part for part in self.parts if not unwanted(part)]
            heapify(self.parts)
            self.rows -= sum(map(len, removed))
        return removed


@dataclass(frozen=True)
class Batch:
    """Rows of one or more requests for one stage.

    Attributes:
        stage: index of its exit.
        parts: whose rows, in this order.
        size: of a row.
    """

    stage: int
    parts: tuple[Part, ...]
    size: int

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def last_try(self) -> bool:
        """Return whether its request has failed before, and runs alone now."""
        return all(part.alone for part in self.parts)

    @property
    def needs_outputs(self) -> bool:
        """Return whether a row may exit here by what its request asks for, whatever the policy says."""
        return any(_may_end(part.job, self.stage) for part in self.parts)

    def carried(self) -> Carried:
        """Return the rows as one batch."""
        return Carried.joined([(part.carried, part.rows) for part in self.parts])


class Scheduler:
    """The queue of one model. It computes nothing and holds no lock: a worker takes batches and reports results.

    Args:
        costs: of the stages.
        most_rows: rows of unfinished requests that it accepts.
        clock: seconds that rise.
    """

    def __init__(self, costs: StageCosts, *, most_rows: int, clock: Clock) -> None:
        self._costs, self._most_rows, self._clock = costs, most_rows, clock
        self._lanes: dict[_LaneKey, _Lane] = {}
        self._numbers = count()
        self._running: tuple[Batch, float] | None = None  # and when it should end
        self._ended: list[Job] = []
        self._reserved, self._usual_size = 0, 1.0

    @property
    def rows(self) -> int:
        """Return the rows that wait or run, and those that are being prepared for them."""
        running = len(self._running[0]) if self._running else 0
        return sum(lane.rows for lane in self._lanes.values()) + running + self._reserved

    def reserve(self, rows: int, *, bound: float, wait_s: float, prepare_s: float) -> None:
        """Accept a request whose inputs are prepared first; ``submit`` or ``release`` has to follow.

        Args:
            rows: of the request.
            bound: by when it has to be answered.
            wait_s: predicted seconds until its preparation begins.
            prepare_s: predicted seconds of that.

        Raises:
            OverloadedError: as in ``submit``.
        """
        if self.rows or wait_s > 0:
            self._check_room(rows, round(self._usual_size), bound, wait_s + prepare_s)
        self._reserved += rows

    def release(self, rows: int) -> None:
        """Forget rows that were reserved."""
        self._reserved -= rows

    def submit(self, job: Job, *, reserved: bool = False) -> None:
        """Accept a request.

        Args:
            job: the request.
            reserved: whether its rows were accepted by ``reserve``.

        Raises:
            OverloadedError: if the queue is full, or too long for the request's bound.
        """
        if reserved:
            self.release(job.rows)
        elif self.rows:  # an empty queue takes any request
            self._check_room(job.rows, job.size, min(job.bound, job.until))
        self._usual_size += _NEWEST * (job.size - self._usual_size) if self._usual_size > 1 else job.size - 1
        everything = np.arange(job.rows)
        self._push(Part(job.bound, next(self._numbers), job, 0, job.inputs, everything, everything))

    def _check_room(self, rows: int, size: int, bound: float, ready_in: float = 0.0) -> None:
        """Refuse rows for which there is no room, or no time: they run once they are ready, and what waits is done."""
        now, waiting = self._clock(), self.rows
        backlog = max(ready_in, self._backlog(now))
        if waiting + rows > self._most_rows:
            raise OverloadedError(
                f"The queue is full: {waiting} rows wait.",
                allowed=f"{self._most_rows} rows",
                next_step="send it again after the time in Retry-After, or to another server",
                retry_after_s=backlog,
            )
        late = backlog + self._costs.expected_alone(rows, size) - FILLED * (bound - now)
        if late > 0:
            raise OverloadedError(
                f"The queue is too long for the latency bound: its work takes {1000 * backlog:.0f} ms.",
                allowed=f"an answer within {1000 * (bound - now):.0f} ms",
                next_step="send it again after the time in Retry-After, or to another server",
                retry_after_s=late,
            )

    def next_batch(self) -> Batch | None:
        """Return what to run now; None: nothing waits. ``finish`` or ``fail`` has to follow."""
        now = self._clock()
        self._release_late(now)
        if not self._lanes:
            return None
        key = self._chosen(now)
        lane = self._lanes[key]
        parts = lane.take(self._costs.most_rows(lane.stage, lane.size))
        if not lane.parts:
            del self._lanes[key]
        batch = Batch(lane.stage, tuple(parts), lane.size)
        self._running = batch, now + self._costs.seconds(batch.stage, len(batch), batch.size)
        return batch

    def finish(self, batch: Batch, result: StageResult, seconds: float) -> None:
        """Take the result of a batch: rows exit, or wait at the next stage.

        Args:
            batch: from ``next_batch``.
            result: of its rows.
            seconds: that it took.
        """
        self._running = None
        self._costs.observe(batch.stage, len(batch), seconds, batch.size)
        start, waiting = 0, list[Part]()
        for part in batch.parts:
            rows = np.arange(start, start + len(part))
            start += len(part)
            if part.job.cancelled or part.job.error is not None:
                continue
            try:
                on = self._exit(part, rows, result)
            except MemoryError as error:  # for the outputs of all its rows: other requests need less
                self._end(part.job, error)
                continue
            if on is not None:
                waiting.append(on)
        # a request may have failed after some of its rows went on
        for part in _compacted([part for part in waiting if part.job.error is None]):
            self._push(part)

    def fail(self, batch: Batch, error: Exception) -> None:
        """Take the error of a batch. Each request runs again alone once: one spoils no other, and faults may pass."""
        self._running = None
        last_try = batch.last_try
        for part in batch.parts:
            if part.job.cancelled or part.job.error is not None:
                continue
            if last_try:
                self._end(part.job, error)
            else:
                part.alone = True
                self._push(part)

    def cancel(self, job: Job) -> None:
        """Forget a request; rows of it that run now are ignored when they are done."""
        job.cancelled = True
        self._removed(lambda part: part.job is job)

    def close(self) -> None:
        """Begin nothing more that no request waits for."""

    def ended(self) -> list[Job]:
        """Return the requests that have finished or failed since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def _exit(self, part: Part, rows: Rows, result: StageResult) -> Part | None:
        """Let rows of a result exit, and return those that go on."""
        job, stage = part.job, part.stage
        may_exit = stage >= job.min_exit
        exits = _reached(job, stage, rows, result) & may_exit | (stage >= min(job.max_exit, self._costs.stages - 1))
        scores = None if result.scores is None else result.scores[rows]
        outputs = result.outputs
        if exits.any():
            assert outputs is not None
            self._record(job, part.places[exits], outputs[rows[exits]], _at(scores, exits), stage)
        if exits.all():
            return None
        on = ~exits
        passed = None if outputs is None or not may_exit or job.deadline is None else outputs[rows[on]]
        waiting = Part(
            part.bound, next(self._numbers), job, stage + 1, result.carried, rows[on], part.places[on], passed,
            _at(scores, on), part.alone,
        )  # fmt: skip
        if self._too_late(waiting, self._clock()):
            self._cut(waiting)
            return None
        return waiting

    def _record(self, job: Job, places: Rows, outputs: Float, scores: Float | None, exit_index: int) -> None:
        job.record(places, outputs, scores, exit_index)
        if job.finished:
            self._ended.append(job)

    def _end(self, job: Job, error: Exception) -> None:
        """Let a request fail."""
        job.error = error
        self._removed(lambda part: part.job is job)
        self._ended.append(job)

    def _cut(self, part: Part) -> None:
        """Let rows take the last exit that they passed."""
        assert part.outputs is not None
        part.job.cut = True
        self._record(part.job, part.places, part.outputs, part.scores, part.stage - 1)

    def _too_late(self, part: Part, now: float) -> bool:
        """Return whether the next stage would end after the deadline of rows that can exit already."""
        if part.outputs is None or part.job.deadline is None:
            return False
        return now + self._costs.seconds(part.stage, len(part), part.job.size) > part.job.deadline

    def _release_late(self, now: float) -> None:
        for part in self._removed(lambda part: self._too_late(part, now), from_stage=1):  # the first always runs
            if part.job.error is None:
                try:
                    self._cut(part)
                except MemoryError as error:
                    self._end(part.job, error)

    def _chosen(self, now: float) -> _LaneKey:
        """Return the lane to run; see the top of this file."""
        costs, lanes = self._costs, self._lanes
        if len(lanes) == 1:
            return next(iter(lanes))
        rows = {key: min(lane.rows, costs.most_rows(lane.stage, lane.size)) for key, lane in lanes.items()}
        # one batch in between, and one that is more urgent by then
        in_between = 2 * max(costs.seconds(lane.stage, rows[key], lane.size) for key, lane in lanes.items())
        slack = {
            key: lane.parts[0].bound - now - costs.to_the_end(lane.stage, rows[key], lane.size)
            for key, lane in lanes.items()
        }
        if urgent := [key for key in lanes if slack[key] <= in_between]:
            return min(urgent, key=lambda key: lanes[key].parts[0].bound)
        efficiency = {key: costs.efficiency(lane.stage, rows[key], lane.size) for key, lane in lanes.items()}
        if full := [key for key in lanes if efficiency[key] >= _NEARLY_FULL]:
            return max(full, key=lambda key: (lanes[key].stage, -lanes[key].parts[0].bound))
        return max(lanes, key=lambda key: (efficiency[key], lanes[key].stage))

    def _backlog(self, now: float) -> float:
        """Return the expected seconds of everything that waits, runs or is being prepared."""
        waiting = sum(self._costs.expected(lane.stage, lane.rows, lane.size) for lane in self._lanes.values())
        waiting += self._costs.expected(0, self._reserved, round(self._usual_size))
        if self._running is None:
            return waiting
        batch, end = self._running
        after = self._costs.expected(batch.stage, len(batch), batch.size)
        after -= self._costs.seconds(batch.stage, len(batch), batch.size)
        return waiting + max(0.0, end - now) + max(0.0, after)

    def _push(self, part: Part) -> None:
        key = part.stage, part.carried.shape, id(part.job) if part.alone else 0
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(part.stage, part.job.size)
        lane.push(part)

    def _removed(self, unwanted: Callable[[Part], bool], *, from_stage: int = 0) -> list[Part]:
        """Remove parts that wait at a stage or behind it, and return them."""
        lanes = [lane for lane in self._lanes.values() if lane.stage >= from_stage]
        if removed := [part for lane in lanes for part in lane.remove(unwanted)]:
            self._lanes = {key: lane for key, lane in self._lanes.items() if lane.parts}
        return removed


def _compacted(parts: list[Part]) -> list[Part]:
    """Return rows of one batch that go on, copied where few of it do: a view would keep all of it in memory.

    At most half of the batch is copied, and a batch of which more goes on holds at most twice what is needed. Rows
    that run together next are not copied again.
    """
    if not parts or 2 * sum(map(len, parts)) > len(parts[0].carried):
        return parts
    try:
        carried = parts[0].carried.chosen(np.concatenate([part.rows for part in parts]))
    except MemoryError:
        return parts
    ends = accumulate(map(len, parts))
    return [
        replace(part, carried=carried, rows=np.arange(end - len(part), end))
        for part, end in zip(parts, ends, strict=True)
    ]


def _may_end(job: Job, stage: int) -> bool:
    """Return whether a request's options may end it at a stage: its largest exit, or its deadline."""
    return stage >= job.max_exit or (job.deadline is not None and stage >= job.min_exit)


def _reached(job: Job, stage: int, rows: Rows, result: StageResult) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which rows reach the threshold of their request's level."""
    if job.thresholds is None or result.scores is None:
        return result.exits[rows]
    return np.greater_equal(result.scores[rows], job.thresholds[stage])


def _at(scores: Float | None, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Float | None:
    return None if scores is None else scores[rows]
