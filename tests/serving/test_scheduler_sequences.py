"""The scheduler under any sequence of calls: no row is lost or answered twice, whatever fails and whoever goes away."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sdcompress.runtime.cost_model import CostModel
from sdcompress.runtime.stepwise import Carried, StageResult
from sdcompress.schema.manifest import StageTimes
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.errors import OverloadedError
from sdcompress.serving.job import Job
from sdcompress.serving.scheduler import Batch, Scheduler

LAST, MOST_ROWS = 2, 40
FAULT = 7  # a row of this value makes the network fail
TIMES = (
    StageTimes(rows=(1, 2, 4, 8), ms=((10.0, 12.0, 16.0, 28.0),) * 3, move_ms=(0.0, 0.0)),
    StageTimes(rows=(1, 2, 4, 8), ms=((10.0, 20.0, 40.0, 80.0),) * 3, move_ms=(0.0, 0.0)),
)
VALUES = st.lists(st.sampled_from([0, 1, 2, 0, 1, 2, FAULT]), min_size=1, max_size=12)


@dataclass
class Accepted:
    """A job, and the exits that its rows take where no deadline cuts them off."""

    job: Job
    values: list[int]
    exits: list[int]


class Sequences(RuleBasedStateMachine):
    """Rows of value v exit at exit v, or as near to it as their request allows."""

    @initialize(times=st.sampled_from(TIMES))
    def begin(self, times: StageTimes) -> None:
        self.now, self.reserved = 0.0, list[int]()
        self.costs = StageCosts(CostModel(None, times=times), times.rows, (0.5, 0.25, 0.25))
        self.scheduler = Scheduler(self.costs, most_rows=MOST_ROWS, clock=lambda: self.now)
        self.batch: Batch | None = None
        self.accepted, self.ended = list[Accepted](), Counter[int]()
        self.jobs: list[Job] = []  # all that ended, in this order

    @rule(
        values=VALUES,
        bound=st.floats(0, 1),
        deadline=st.none() | st.floats(0, 0.2),
        exits=st.tuples(st.integers(0, LAST), st.integers(0, LAST)).map(sorted),
        width=st.integers(1, 2),
        reserved=st.booleans(),
    )
    def submit(
        self, *, values: list[int], bound: float, deadline: float | None, exits: list[int], width: int, reserved: bool
    ) -> None:
        inputs = np.repeat(np.array(values, np.float32)[:, None], width, axis=1)
        limit = None if deadline is None else self.now + deadline
        job = Job(Carried({"x": inputs}), self.now + bound, limit, min_exit=exits[0], max_exit=exits[1])
        reserved = reserved and len(values) in self.reserved
        try:
            self.scheduler.submit(job, reserved=reserved)
        except OverloadedError:
            assert not reserved
            return
        if reserved:
            self.reserved.remove(len(values))
        taken = [min(max(value, exits[0]), exits[1]) for value in values]
        self.accepted.append(Accepted(job, values, taken))

    @rule(rows=st.integers(1, 12), bound=st.floats(0, 1))
    def reserve(self, rows: int, bound: float) -> None:
        with contextlib.suppress(OverloadedError):
            self.scheduler.reserve(rows, bound=self.now + bound, wait_s=0.0, prepare_s=0.001)
            self.reserved.append(rows)

    @precondition(lambda self: self.reserved)
    @rule()
    def release(self) -> None:
        self.scheduler.release(self.reserved.pop())

    @precondition(lambda self: self.batch is None)
    @rule()
    def take(self) -> None:
        self.batch = self.scheduler.next_batch()
        assert self.batch is None or 1 <= len(self.batch) <= 8
        self._collect()

    @precondition(lambda self: self.batch is not None)
    @rule()
    def report(self) -> None:
        batch, self.batch = self.batch, None
        assert batch is not None
        carried, stage = batch.carried(), batch.stage
        seconds = self.costs.seconds(stage, len(batch))
        self.now += seconds
        values = carried.tensors["x"][:, 0]
        if (values == FAULT).any():
            self.scheduler.fail(batch, ValueError("the network failed"))
        else:
            scores = None if stage == LAST else np.full(len(values), 0.5, np.float32)
            exits = (values <= stage) | (stage == LAST)
            self.scheduler.finish(batch, StageResult((10 * values + stage)[:, None], scores, exits, carried), seconds)
        self._collect()

    @precondition(lambda self: self.accepted)
    @rule(at=st.integers(0, 100))
    def cancel(self, at: int) -> None:
        job = self.accepted[at % len(self.accepted)].job
        if not job.finished and job.error is None:
            self.scheduler.cancel(job)

    @rule(seconds=st.floats(0, 0.1))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def _collect(self) -> None:
        for job in self.scheduler.ended():
            assert not job.cancelled
            self.jobs.append(job)
            self.ended[id(job)] += 1

    @invariant()
    def nothing_waits_beyond_what_was_accepted(self) -> None:
        open_ = [one.job for one in self.accepted if id(one.job) not in self.ended]
        running = len(self.batch) if self.batch else 0
        assert sum(self.reserved) <= self.scheduler.rows
        assert self.scheduler.rows <= sum(job.rows for job in open_) + sum(self.reserved) + running

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for _ in range(10_000):
            if self.batch is None:
                self.take()
            if self.batch is None:
                break
            self.report()
        assert self.scheduler.rows == sum(self.reserved)
        assert set(self.ended.values()) <= {1}
        for one in self.accepted:
            job = one.job
            assert job.cancelled or self.ended[id(job)] == 1
            if job.cancelled:
                assert self.ended[id(job)] == 0
            elif job.error is not None:
                assert FAULT in one.values
            else:
                assert FAULT not in one.values
                self._check_answer(one)

    def _check_answer(self, one: Accepted) -> None:
        job, taken = one.job, one.job.exit_index.tolist()
        if job.deadline is None:
            assert taken == one.exits
        assert all(job.min_exit <= at <= exit_ for at, exit_ in zip(taken, one.exits, strict=True))
        assert job.outputs[:, 0].tolist() == [10 * value + at for value, at in zip(one.values, taken, strict=True)]


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, derandomize=True)
