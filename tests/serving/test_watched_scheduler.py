"""Audits, fall-back and brown-out of the scheduler, with a clock that the test moves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from sdcompress.runtime.cost_model import CostModel
from sdcompress.runtime.drift import DriftMonitor
from sdcompress.runtime.levels import Level
from sdcompress.runtime.stepwise import Carried, StageResult
from sdcompress.schema.manifest import StageTimes
from sdcompress.serving.audits import Audits
from sdcompress.serving.brown_out import BrownOut
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.errors import OverloadedError
from sdcompress.serving.job import Job
from sdcompress.serving.scheduler import Batch
from sdcompress.serving.watched_scheduler import WatchedScheduler

# 8 rows take 16 ms at each of three stages, one alone 4 ms
TIMES = StageTimes(rows=(1, 8), ms=((4.0, 16.0),) * 3, move_ms=(0.0, 0.0))
# of ten rows five exit at the first exit, and two more at the second; at the looser level seven and two
STRICT = Level(0.01, (0.9, 0.9), 10_000, (0.5, 0.2, 0.3), 0.01)
LOOSE = Level(0.02, (0.5, 0.5), 10_000, (0.7, 0.2, 0.1), 0.02)
BOUND = 0.5


class Recorded(DriftMonitor):
    """A monitor that audits whole requests as the test says, and keeps the losses."""

    def __init__(self, share: float = 1.0, levels: tuple[Level, ...] = (STRICT, LOOSE)) -> None:
        super().__init__(levels, audit_share=share, seed=0)
        self.seen: list[tuple[int, list[float]]] = []

    def audited(self, losses: object, level: int = 0) -> None:
        values = np.asarray(losses, np.float64)
        self.seen.append((level, values.tolist()))
        super().audited(values, level)

    @property
    def count(self) -> int:
        return sum(len(losses) for _, losses in self.seen)


def differs(outputs: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.abs(outputs[:, 1] - last[:, 1])


@dataclass
class Bench:
    """A scheduler, its clock and a network.

    A row (v, d) exits at exit ceil(v), and at the looser level at exit floor(v). Its outputs are (exit, 0), or
    (exit, 1) before the last exit if d is 1: then they disagree.
    """

    audit_share: float = 0.0
    brown_out: bool = False
    fall_back: bool = True
    now: float = 0.0
    order: list[tuple[int, int, bool]] = field(default_factory=list)  # stage, rows, whether they are audits
    levels: list[int] = field(default_factory=list)
    alarms: int = 0

    def __post_init__(self) -> None:
        self.monitor = Recorded(self.audit_share)
        self.audits = Audits(self.monitor, differs, 3) if self.audit_share else None
        self.costs = StageCosts(CostModel(None, times=TIMES), TIMES.rows, STRICT.shares)
        self.scheduler = WatchedScheduler(
            self.costs,
            most_rows=10_000,
            clock=lambda: self.now,
            levels=(STRICT, LOOSE),
            latency_bound=BOUND,
            monitor=self.monitor,
            audits=self.audits,
            brown_out=BrownOut(2, BOUND) if self.brown_out else None,
            fall_back=self.fall_back,
            on_alarm=self.alarm,
            on_level=self.levels.append,
        )
        self.ended: list[Job] = []

    def alarm(self) -> None:
        self.alarms += 1

    def job(self, *values: float, disagree: float = 0.0, covered: bool = True, **options: object) -> Job:
        inputs = np.array([(value, disagree) for value in values], np.float32)
        options.setdefault("bound", self.now + BOUND)
        job = Job(Carried({"x": inputs}), covered=covered, **options)  # type: ignore[arg-type]
        self.scheduler.submit(job)
        return job

    def result(self, batch: Batch) -> StageResult:
        carried, stage = batch.carried(), batch.stage
        value, disagree = carried.tensors["x"].T
        outputs = np.stack([np.full(len(value), stage), disagree * (stage < 2)], axis=1).astype(np.float32)
        if stage == 2:
            return StageResult(outputs, None, np.ones(len(value), np.bool_), carried)
        scores = np.where(stage >= np.ceil(value), 0.95, np.where(stage >= np.floor(value), 0.6, 0.1))
        return StageResult(outputs, scores.astype(np.float32), scores >= 0.9, carried)

    def begin(self) -> tuple[Batch, float] | None:
        """Return the batch that runs now, and when it ends."""
        if (batch := self.scheduler.next_batch()) is None:
            return None
        self.order.append((batch.stage, len(batch), batch.parts[0].bound == float("inf")))
        return batch, self.now + self.costs.seconds(batch.stage, len(batch))

    def finish(self, batch: Batch, end: float) -> None:
        self.now = end
        self.scheduler.finish(batch, self.result(batch), self.costs.seconds(batch.stage, len(batch)))

    def step(self) -> bool:
        running = self.begin()
        if running:
            self.finish(*running)
        self.ended += self.scheduler.ended()
        return running is not None

    def drain(self) -> None:
        while self.step():
            pass

    def load(self, rate: float, seconds: float, draw: Callable[[np.random.Generator], float]) -> list[float]:
        """Send requests of one row at random times, and return the seconds of those that were answered."""
        rng, sent, took = np.random.default_rng(0), dict[Job, float](), list[float]()
        arrivals = (self.now + np.cumsum(rng.exponential(1 / rate, int(rate * seconds)))).tolist()[::-1]
        while arrivals or self.scheduler.rows:
            running = self.begin()
            end = running[1] if running else arrivals[-1]
            while arrivals and arrivals[-1] <= end:
                self.now = arrivals.pop()
                with contextlib.suppress(OverloadedError):
                    sent[self.job(draw(rng))] = self.now
            if running:
                self.finish(*running)
            took += [self.now - sent[job] for job in self.scheduler.ended()]
        self.under_load = len(self.order), self.now
        self.drain()
        return took


def usual(rng: np.random.Generator) -> float:
    """Draw a row with the exit shares of both levels."""
    return float(rng.choice([0.0, 0.5, 1.0, 1.5, 2.0], p=[0.5, 0.2, 0.0, 0.2, 0.1]))


def test_an_early_exit_is_audited_when_nothing_waits_and_the_last_exit_counts_as_0() -> None:
    bench = Bench(audit_share=1.0)
    bench.job(0, disagree=1.0)
    bench.job(2, disagree=1.0)
    bench.job(0)
    bench.drain()
    assert [auditing for _, _, auditing in bench.order] == [False] * 3 + [True] * 3
    assert bench.order[3:] == [(0, 2, True), (1, 2, True), (2, 2, True)]  # both together, to the last exit
    assert bench.monitor.seen == [(0, [1.0]), (0, [0.0]), (0, [0.0])]


def test_losses_are_handed_in_in_the_order_of_the_choice() -> None:
    bench = Bench(audit_share=1.0)
    slow, quick = bench.job(0, disagree=1.0), bench.job(2)
    while not quick.finished:
        bench.step()
    assert slow.finished
    assert bench.monitor.seen == []  # the quick one waits for the audit of the one before it
    bench.drain()
    assert bench.monitor.seen == [(0, [1.0]), (0, [0.0])]


def test_requests_that_the_policy_does_not_decide_alone_are_neither_audited_nor_counted() -> None:
    bench = Bench(audit_share=1.0)
    bench.job(0, covered=False)
    bench.drain()
    assert bench.monitor.seen == []
    assert bench.monitor.shares.rows == 0


def test_what_is_cancelled_or_fails_counts_as_0() -> None:
    bench = Bench(audit_share=1.0)
    gone = bench.job(2, disagree=1.0)
    bench.scheduler.cancel(gone)
    assert bench.monitor.seen == [(0, [0.0])]
    bench.job(0, disagree=1.0)
    bench.step()
    audit = bench.begin()
    assert audit is not None
    bench.scheduler.fail(audit[0], ValueError("out of memory"))
    assert bench.monitor.seen[1:] == [(0, [0.0])]
    assert bench.audits is not None
    assert bench.audits.failed == 1
    assert bench.scheduler.next_batch() is None


def test_audits_that_cannot_keep_up_are_not_chosen_any_more_and_none_is_lost() -> None:
    bench = Bench(audit_share=1.0)
    for _ in range(5):
        bench.job(*[0.0] * 20, bound=100.0)  # 64 rows of 100 are taken on
    assert bench.audits is not None
    assert bench.audits.pending == 64
    bench.drain()
    assert (bench.monitor.count, bench.audits.pending) == (64, 0)


def test_requests_that_come_go_before_audits_and_audits_go_on_at_the_next_stage() -> None:
    bench = Bench(audit_share=1.0)
    bench.job(0)
    bench.step()
    bench.step()
    bench.job(2)
    bench.drain()
    assert bench.order[1] == (0, 1, True)
    assert bench.order[2:5] == [(0, 1, False), (1, 1, False), (2, 1, False)]
    assert bench.order[5:7] == [(1, 1, True), (2, 1, True)]


@pytest.mark.parametrize("load", [0.5, 0.9, 3.0])
def test_audits_break_no_bound_and_go_on_under_lasting_load(load: float) -> None:
    bench = Bench(audit_share=1.0)  # a hundred times as many as usual
    peak = 1 / (0.002 * (1 + 0.5 + 0.3))  # rows of full batches
    took = bench.load(load * peak, 6.0, usual)
    assert len(took) > 0.9 * min(load, 1.0) * peak * 6
    assert max(took) <= BOUND
    batches, end = bench.under_load
    audited = sum(bench.costs.seconds(stage, rows) for stage, rows, auditing in bench.order[:batches] if auditing)
    assert audited > 0
    assert bench.monitor.count > 50
    assert bench.monitor.alarm is None  # although shallow rows are answered long before deep ones
    if load > 1:  # never idle: a fiftieth of the time
        assert audited / end < 0.03


def test_an_audit_that_would_take_long_is_not_run() -> None:
    bench = Bench(audit_share=1.0)
    bench.costs.calibrate([0.1] * 3, 1)  # one row takes a fifth of the bound
    bench.job(0)
    bench.drain()
    assert bench.order == [(0, 1, False)]


def test_a_row_whose_audit_would_take_long_counts_as_0_and_holds_up_no_other() -> None:
    bench = Bench(audit_share=1.0)
    bench.costs.calibrate([0.1] * 3, 1)
    bench.job(0, disagree=1.0)
    bench.drain()
    assert (bench.monitor.seen, bench.audits and bench.audits.pending) == ([(0, [0.0])], 0)
    bench.costs.calibrate([0.004] * 3, 1)
    bench.job(0, disagree=1.0)
    bench.drain()
    assert bench.monitor.seen[1:] == [(0, [1.0])]


@pytest.mark.parametrize("value", [2.0, np.nan, None])
def test_a_loss_that_is_none_counts_as_0_and_stops_nothing(value: float | None) -> None:
    bench = Bench(audit_share=1.0)
    assert bench.audits is not None
    bench.audits._loss_of = lambda outputs, _: np.array([1 / 0 if value is None else value] * len(outputs))
    bench.job(0)
    bench.drain()
    assert (bench.monitor.seen, bench.audits.failed) == ([(0, [0.0])], 1)


def test_a_stopped_service_does_not_wait_for_audits() -> None:
    bench = Bench(audit_share=1.0)
    bench.job(0)
    bench.step()
    bench.scheduler.close()
    assert not bench.step()


def test_after_an_alarm_rows_run_to_the_last_exit_until_it_is_reset() -> None:
    bench = Bench()
    under_way = bench.job(0, 0)
    bench.monitor.audited(np.ones(5))
    bench.step()
    assert bench.scheduler.fallen_back
    assert under_way.exit_index.tolist() == [0, 0]
    fallen = bench.job(0, 2)
    bench.drain()
    assert fallen.exit_index.tolist() == [2, 2]
    assert fallen.fallen_back
    assert bench.alarms == 1
    assert bench.costs.expected(0, 1) == pytest.approx(3 * 0.002)  # what the whole network takes
    bench.scheduler.reset()
    again = bench.job(0)
    bench.drain()
    assert again.exit_index.tolist() == [0]
    assert bench.costs.expected(0, 1) == pytest.approx(0.002 * 1.8, rel=0.05)


def test_a_fall_back_keeps_what_requests_ask_for() -> None:
    bench = Bench()
    bench.monitor.audited(np.ones(5))
    bench.scheduler.ended()
    first, in_a_hurry = bench.job(0, max_exit=0, covered=False), bench.job(0, deadline=0.009, covered=False)
    bench.drain()
    assert first.exit_index.tolist() == [0]
    assert in_a_hurry.exit_index.tolist() == [0]
    assert in_a_hurry.cut


def test_an_alarm_can_be_reported_alone() -> None:
    bench = Bench(fall_back=False)
    bench.monitor.audited(np.ones(5))
    job = bench.job(0)
    bench.drain()
    assert (bench.alarms, job.exit_index.tolist(), job.fallen_back) == (1, [0], False)


def test_rows_keep_the_level_that_their_request_was_accepted_at() -> None:
    bench = Bench(brown_out=True)
    before = bench.job(1.5)
    while bench.scheduler.level == 0:
        bench.now += 0.001
        bench.job(*[0.0] * 8)
    after = bench.job(1.5, bound=bench.now + 2 * BOUND)
    assert (before.level, after.level) == (0, 1)
    bench.drain()
    assert before.exit_index.tolist() == [2]
    assert after.exit_index.tolist() == [1]
    assert bench.scheduler.answered_rows[0] > 0 < bench.scheduler.answered_rows[1]


def test_one_and_a_half_times_the_load_is_answered_by_a_step_down_instead_of_refusals() -> None:
    peak = 1 / (0.002 * (1 + 0.5 + 0.3))  # rows per second at the first level; at the second 1.29 times as many
    answered = {}
    for brown_out in (False, True):
        bench = Bench(brown_out=brown_out)
        took = bench.load(1.5 * peak, 10.0, usual)
        answered[brown_out] = sum(seconds <= BOUND for seconds in took) / 10
        assert max(took) <= BOUND
        assert bench.monitor.alarm is None
        if brown_out:
            assert bench.levels[0] == 1
            bench.now += 3 * BOUND
            assert bench.job(1.5).level == 0  # it has gone back
    assert answered[False] == pytest.approx(peak, rel=0.06)
    assert answered[True] > 1.2 * answered[False]


def test_the_level_goes_down_at_once_and_comes_back_after_a_calm_bound() -> None:
    brown_out = BrownOut(3, bound=1.0)
    assert not brown_out.update(0.5, 0.0)
    assert brown_out.update(0.7, 0.01)
    assert not brown_out.update(0.9, 0.05)  # the first step has not shown yet
    assert brown_out.update(0.9, 0.12)
    assert brown_out.level == 2
    assert not brown_out.update(0.9, 0.3)  # there is no deeper one
    assert not brown_out.update(0.1, 1.2)
    assert not brown_out.update(0.3, 1.25)  # not calm: it counts anew
    assert not brown_out.update(0.1, 2.2)
    assert brown_out.update(0.1, 2.3)
    assert brown_out.level == 1
    assert brown_out.update(0.1, 3.4)
    assert brown_out.level == 0


def test_raw_examples_on_an_idle_service_bring_the_level_back() -> None:
    bench = Bench(brown_out=True)
    while bench.scheduler.level == 0:
        bench.now += 0.001
        bench.job(*[0.0] * 8)
    bench.drain()
    bench.now += 3 * BOUND
    bench.scheduler.reserve(1, bound=bench.now + BOUND, wait_s=0.0, prepare_s=0.0)
    assert bench.scheduler.level == 0


def test_what_one_client_asks_for_lowers_the_level_of_nobody() -> None:
    bench = Bench(brown_out=True)
    bench.job(2)
    for options in ({"until": 0.0001}, {"bound": 0.0001}):
        with pytest.raises(OverloadedError):
            bench.job(0, **options)
    with pytest.raises(OverloadedError):
        bench.job(*[0.0] * 5000)
    with pytest.raises(OverloadedError):
        bench.scheduler.reserve(5000, bound=0.0001, wait_s=BOUND, prepare_s=BOUND)
    assert bench.scheduler.level == 0


def test_a_request_that_ends_while_it_is_cancelled_is_counted_once() -> None:
    bench = Bench(audit_share=1.0)
    job = bench.job(0)
    bench.step()
    assert job.finished
    bench.scheduler.cancel(job)
    assert bench.scheduler.answered_rows == [1, 0]
