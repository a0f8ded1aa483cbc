"""The scheduler: pure, with a clock that the test moves. Stages are lists of which rows exit."""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcompress.runtime.cost_model import CostModel
from sdcompress.runtime.stepwise import Carried, StageResult
from sdcompress.schema.manifest import StageTimes
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.errors import OverloadedError
from sdcompress.serving.job import NO_SCORE, Job
from sdcompress.serving.scheduler import Batch, Part, Scheduler

# 1 row takes 10 ms at each of three stages, 4 rows take 16 ms, 8 rows 28 ms: a full batch has 8 rows
BATCHES_PAY = StageTimes(rows=(1, 2, 4, 8), ms=((10.0, 12.0, 16.0, 28.0),) * 3, move_ms=(0.0, 0.0))
# as on one core: every row takes 10 ms, whatever runs beside it
NOTHING_PAYS = StageTimes(rows=(1, 2, 4, 8), ms=((10.0, 20.0, 40.0, 80.0),) * 3, move_ms=(0.0, 0.0))


def costs_of(times: StageTimes = BATCHES_PAY, shares: tuple[float, ...] = (0.5, 0.25, 0.25)) -> StageCosts:
    return StageCosts(CostModel(None, times=times), times.rows, shares)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A scheduler, its clock, and a network: a row of value v exits at exit v, its outputs are 10 v + exit."""

    times: StageTimes = field(default_factory=lambda: BATCHES_PAY)
    most_rows: int = 100
    clock: Clock = field(default_factory=Clock)
    order: list[tuple[int, list[float]]] = field(default_factory=list)  # stage and rows of each batch
    ended: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.costs = costs_of(self.times)
        self.scheduler = Scheduler(self.costs, most_rows=self.most_rows, clock=self.clock)

    def job(self, *values: float, bound: float = 10.0, width: int = 1, **options: object) -> Job:
        inputs = np.repeat(np.array(values, np.float32)[:, None], width, axis=1)
        job = Job(Carried({"x": inputs}), self.clock.now + bound, **options)  # type: ignore[arg-type]
        self.scheduler.submit(job)
        return job

    def result(self, batch: Batch) -> StageResult:
        carried, stage = batch.carried(), batch.stage
        values = carried.tensors["x"][:, 0]
        exits = (values == stage) | (stage == 2)
        scores = None if stage == 2 else np.where(values == stage, np.float32(0.9), np.float32(0.1))
        return StageResult((10 * values + stage)[:, None], scores, exits, carried)

    def step(self, seconds: float | None = None) -> Batch | None:
        batch = self.scheduler.next_batch()
        if batch is not None:
            self.order.append((batch.stage, batch.carried().tensors["x"][:, 0].tolist()))
            took = self.costs.seconds(batch.stage, len(batch)) if seconds is None else seconds
            self.clock.now += took
            self.scheduler.finish(batch, self.result(batch), took)
        self.ended += self.scheduler.ended()
        return batch

    def drain(self) -> None:
        while self.step() is not None:
            pass


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, [False, False, False]),
        ({"max_exit": 1}, [False, True, True]),
        ({"deadline": 1e9}, [True, True, True]),
        ({"deadline": 1e9, "min_exit": 1}, [False, True, True]),
    ],
)
def test_a_batch_needs_outputs_where_the_options_of_a_request_may_end_it(
    options: dict[str, Any], needed: list[bool]
) -> None:
    rows, carried = np.arange(1), Carried({"x": np.zeros((1, 1), np.float32)})
    jobs = [Job(carried, 1.0), Job(carried, 1.0, **options)]

    def batch(stage: int) -> Batch:
        return Batch(stage, tuple(Part(1.0, k, job, stage, carried, rows, rows) for k, job in enumerate(jobs)), 1)

    assert [batch(stage).needs_outputs for stage in range(3)] == needed


def test_a_lone_request_runs_at_once_and_to_its_exit() -> None:
    bench = Bench()
    job = bench.job(1)
    bench.drain()
    assert bench.order == [(0, [1.0]), (1, [1.0])]
    assert bench.ended == [job]
    assert job.outputs.tolist() == [[11.0]]
    assert job.exit_index.tolist() == [1]
    assert job.scores.tolist() == [pytest.approx(0.9)]


def test_rows_of_a_request_exit_one_by_one_and_the_last_exit_has_no_score() -> None:
    bench = Bench()
    job = bench.job(2, 0, 1)
    bench.drain()
    assert job.outputs[:, 0].tolist() == [22.0, 0.0, 11.0]
    assert job.exit_index.tolist() == [2, 0, 1]
    assert job.scores.tolist() == [NO_SCORE, pytest.approx(0.9), pytest.approx(0.9)]


def test_rows_that_go_on_are_joined_by_rows_of_other_requests() -> None:
    bench = Bench()
    first = bench.job(2, 0)
    bench.step()
    second = bench.job(2, 2, 0)
    bench.drain()
    # one row waits at stage 1; three at stage 0 are nearer to a full batch, and two of them join it
    assert bench.order == [(0, [2, 0]), (0, [2, 2, 0]), (1, [2, 2, 2]), (2, [2, 2, 2])]
    assert set(bench.ended) == {first, second}


def test_where_batches_save_nothing_the_deepest_stage_goes_first() -> None:
    bench = Bench(NOTHING_PAYS)
    bench.job(2)
    bench.step()
    bench.job(0)
    bench.drain()
    assert [stage for stage, _ in bench.order] == [0, 1, 2, 0]
    assert all(len(rows) == 1 for _, rows in bench.order)


def test_a_full_deep_batch_goes_before_new_requests() -> None:
    bench = Bench()
    bench.job(*[2.0] * 8)
    bench.step()
    bench.job(*[0.0] * 8)
    bench.drain()
    assert [stage for stage, _ in bench.order] == [0, 1, 2, 0]


def test_the_request_with_the_least_time_left_goes_first() -> None:
    bench = Bench()
    bench.job(2, bound=0.1)
    bench.step()  # 90 ms are left, 20 ms of them for its two stages: time for two batches of 28 ms
    bench.job(*[0.0] * 8)
    bench.step()
    bench.job(*[0.0] * 8)
    bench.drain()
    assert [stage for stage, _ in bench.order] == [0, 0, 1, 2, 0]


def test_of_two_requests_whose_time_is_short_the_earlier_bound_goes_first() -> None:
    bench = Bench()
    bench.job(2, bound=0.06)
    bench.step()
    bench.job(2, bound=0.052)
    bench.clock.now += 0.02  # slack: 30 - 20 ms for the two stages of the first, 32 - 30 for all three of the second
    bench.drain()
    assert [stage for stage, _ in bench.order] == [0, 1, 2, 0, 1, 2]


def test_within_a_stage_the_earliest_bound_goes_first_and_requests_are_split() -> None:
    bench = Bench()
    late, early = bench.job(*[0.0] * 6, bound=9.0), bench.job(*[1.0] * 4, bound=5.0)
    bench.step()
    assert bench.order == [(0, [1.0] * 4 + [0.0] * 4)]
    bench.drain()
    assert late.finished
    assert early.finished
    assert late.exit_index.tolist() == [0] * 6


def test_rows_of_different_shape_share_no_batch() -> None:
    bench = Bench()
    bench.job(0, width=2)
    bench.job(0, width=3)
    bench.drain()
    assert [len(rows) for _, rows in bench.order] == [1, 1]


def test_a_full_queue_refuses_with_a_time() -> None:
    bench = Bench(most_rows=3)
    bench.job(0, 0)
    with pytest.raises(OverloadedError, match=r"The queue is full: 2 rows wait\.") as refused:
        bench.job(0, 0)
    assert refused.value.retry_after_s > 0
    bench.job(0)
    bench.drain()
    bench.job(0, 0, 0, 0, 0)  # an empty queue takes any request


def test_a_queue_that_is_too_long_for_the_bound_refuses() -> None:
    bench = Bench(NOTHING_PAYS)
    # reached: 100, 50, 25 of 100 samples, so a row takes 10 + 5 + 2.5 ms; eight of them 140 ms
    bench.job(*[0.0] * 8)
    with pytest.raises(OverloadedError, match="its work takes 140 ms") as refused:
        bench.job(0, bound=0.1565 / 0.6)  # four tenths of the bound are kept free
    assert refused.value.retry_after_s == pytest.approx(0.001)
    bench.job(0, bound=0.1585 / 0.6)


def test_the_running_batch_counts_with_the_time_that_is_left_of_it() -> None:
    bench = Bench(NOTHING_PAYS)
    bench.job(0, 0)
    assert bench.scheduler.next_batch() is not None  # one row of two: 10 ms now, then 7.5 ms expected behind it
    bench.clock.now += 0.004
    with pytest.raises(OverloadedError, match="its work takes 31 ms"):  # 6 + 7.5 + 17.5
        bench.job(0, bound=0.05)


def test_rows_that_are_being_prepared_count_as_work_and_keep_their_place() -> None:
    bench = Bench(NOTHING_PAYS, most_rows=12)
    bench.scheduler.reserve(8, bound=10.0, wait_s=0.0, prepare_s=0.0)  # 140 ms, as above
    assert bench.scheduler.rows == 8
    with pytest.raises(OverloadedError, match="its work takes 140 ms"):
        bench.job(0, bound=0.1565 / 0.6)
    with pytest.raises(OverloadedError, match="its work takes 300 ms"):  # ready in 300 ms, then 17.5 ms to run
        bench.scheduler.reserve(1, bound=0.3165 / 0.6, wait_s=0.2, prepare_s=0.1)
    bench.scheduler.reserve(1, bound=0.3185 / 0.6, wait_s=0.2, prepare_s=0.1)
    with pytest.raises(OverloadedError, match="The queue is full: 9 rows wait"):
        bench.scheduler.reserve(4, bound=10.0, wait_s=0.0, prepare_s=0.0)
    bench.scheduler.release(1)
    job = Job(Carried({"x": np.zeros((8, 1), np.float32)}), bound=0.001)
    bench.scheduler.submit(job, reserved=True)  # accepted before, whatever its bound is now
    assert bench.scheduler.rows == 8
    bench.drain()
    assert bench.ended == [job]
    assert bench.scheduler.rows == 0


def test_a_deadline_takes_the_deepest_exit_that_can_be_reached() -> None:
    bench = Bench()
    job = bench.job(2, deadline=0.025)  # the third stage would end at 30 ms
    bench.drain()
    assert [stage for stage, _ in bench.order] == [0, 1]
    assert job.exit_index.tolist() == [1]
    assert job.outputs.tolist() == [[21.0]]
    assert job.scores.tolist() == [pytest.approx(0.1)]
    assert job.cut


def test_a_deadline_that_has_passed_still_runs_the_first_stage() -> None:
    bench = Bench()
    job = bench.job(2, deadline=-1.0)
    bench.drain()
    assert job.exit_index.tolist() == [0]


def test_a_deadline_that_passes_while_rows_wait_releases_them() -> None:
    bench = Bench()
    job = bench.job(2, deadline=0.1)
    bench.step()
    bench.job(*[0.0] * 8)  # a full batch, and the other row has 70 ms to spare
    bench.step(seconds=0.1)  # longer than predicted
    assert bench.order[1][0] == 0
    bench.step()
    assert bench.ended[-1] is job
    assert job.exit_index.tolist() == [0]
    assert job.scores.tolist() == [pytest.approx(0.1)]


def test_a_tiny_deadline_buys_no_priority() -> None:
    bench = Bench(NOTHING_PAYS)
    honest = bench.job(2, bound=0.2)
    for _ in range(10):
        bench.job(0, bound=10.0, deadline=1e-6)
    bench.drain()
    assert [stage for stage, _ in bench.order] == [0, 1, 2] + [0] * 10
    assert bench.ended[0] is honest
    assert not honest.cut


@pytest.mark.parametrize(("going_on", "kept"), [(2, False), (5, True)])
def test_few_rows_that_wait_do_not_keep_the_batch_that_they_were_in(going_on: int, kept: bool) -> None:
    bench = Bench()
    jobs = [bench.job(2.0 if at < going_on else 0.0) for at in range(8)]
    batch = bench.scheduler.next_batch()
    assert batch is not None
    result = bench.result(batch)
    tensor = weakref.ref(result.carried.tensors["x"])
    bench.scheduler.finish(batch, result, 0.01)
    del batch, result
    assert (tensor() is not None) == kept
    bench.drain()
    assert [job.outputs.tolist() for job in jobs] == [[[22.0]]] * going_on + [[[0.0]]] * (8 - going_on)


def test_rows_that_are_a_whole_batch_again_are_not_copied() -> None:
    batch = Carried({"x": np.arange(4.0)[:, None]})
    halves = [(batch, np.arange(2)), (batch, np.arange(2, 4))]
    assert Carried.joined(halves) is batch
    assert Carried.joined(halves[::-1]).tensors["x"][:, 0].tolist() == [2, 3, 0, 1]


def test_exits_below_the_first_allowed_are_not_taken_not_even_for_a_deadline() -> None:
    bench = Bench()
    job = bench.job(0, deadline=0.001, min_exit=1)
    bench.drain()
    assert job.exit_index.tolist() == [1]


def test_no_row_goes_past_the_last_allowed_exit() -> None:
    bench = Bench()
    job = bench.job(0, 2, max_exit=1)
    bench.drain()
    assert job.exit_index.tolist() == [0, 1]
    assert [stage for stage, _ in bench.order] == [0, 1]


def test_a_failed_batch_runs_again_request_by_request() -> None:
    bench = Bench()
    good, bad = bench.job(0), bench.job(5)

    def run(batch: Batch) -> None:
        if (batch.carried().tensors["x"] == 5).any():
            bench.scheduler.fail(batch, ValueError("five"))
        else:
            bench.scheduler.finish(batch, bench.result(batch), 0.01)

    sizes = []
    while (batch := bench.scheduler.next_batch()) is not None:
        sizes.append(len(batch))
        run(batch)
    assert sizes == [2, 1, 1]
    assert good.finished
    assert good.error is None
    assert isinstance(bad.error, ValueError)
    assert set(bench.scheduler.ended()) == {good, bad}


def test_a_cancelled_request_frees_its_place_and_does_not_end() -> None:
    bench = Bench(most_rows=2)
    waiting = bench.job(0, 0)
    bench.scheduler.cancel(waiting)
    assert bench.scheduler.rows == 0
    running = bench.job(2, 0)
    batch = bench.scheduler.next_batch()
    assert batch is not None
    bench.scheduler.cancel(running)
    bench.scheduler.finish(batch, bench.result(batch), 0.01)
    assert bench.scheduler.rows == 0
    assert bench.scheduler.ended() == []
    assert bench.scheduler.next_batch() is None


def test_predictions_follow_the_machine() -> None:
    costs = costs_of(NOTHING_PAYS)
    assert costs.seconds(0, 1) == pytest.approx(0.01)
    costs.calibrate([0.02, 0.02, 0.02], 1)
    assert costs.seconds(0, 4) == pytest.approx(0.08)
    for _ in range(100):
        costs.observe(0, 1, 0.04)
    assert costs.seconds(2, 1) == pytest.approx(0.04, rel=0.01)
    # hundreds of rows at the first stage, none at the others: few are expected there
    assert costs.expected(0, 1) < 0.06


def test_what_is_expected_follows_other_data_though_very_many_rows_came_before() -> None:
    costs = costs_of(NOTHING_PAYS)
    for _ in range(40_000):  # 320,000 rows that take the first exit
        costs.observe(0, 8, 0.08)
    assert costs.expected_alone(1) == pytest.approx(0.01, rel=0.01)
    assert costs.expected(1, 1) == pytest.approx(0.015)  # nothing new is known of the stages behind
    for stage in (0, 1, 2) * 4_000:  # 32,000 that run to the last one
        costs.observe(stage, 8, 0.08)
    assert costs.expected_alone(1) == pytest.approx(0.03, rel=0.05)
    assert costs.expected(0, 1) == pytest.approx(0.03, rel=0.05)


def test_an_interrupted_batch_changes_predictions_little() -> None:
    costs = costs_of(NOTHING_PAYS)
    costs.observe(0, 1, 0.01)
    costs.observe(0, 1, 1.0)
    assert costs.seconds(0, 1) == pytest.approx(0.011)


def test_a_full_batch_is_the_smallest_that_is_nearly_best() -> None:
    assert [costs_of().most_rows(stage) for stage in range(3)] == [8, 8, 8]
    assert costs_of(NOTHING_PAYS).most_rows(0) == 1
    assert costs_of().efficiency(0, 4) == pytest.approx(3.5 / 4)
    assert costs_of().to_the_end(1, 10) == pytest.approx(2 * (0.028 + 0.012))


@pytest.mark.parametrize("ms", [(1.05, 1.2, 2.6), (0.75, 1.5, 8.5), (1.1, 2.1, 32.1)])  # of 1, 4 and 32 rows
def test_three_times_too_many_requests_cost_neither_throughput_nor_the_bound(ms: tuple[float, float, float]) -> None:
    times = StageTimes(rows=(1, 4, 32), ms=(ms,) * 3, move_ms=(0.0, 0.0))
    peak = 1000 / (ms[-1] / 32 * 1.75)  # rows of full batches: 100, 50 and 25 of 100 at the three stages
    bound, rng = 0.1, np.random.default_rng(0)
    bench = Bench(times, most_rows=10**6)
    count = int(3 * peak * 0.4)
    arrivals = np.cumsum(rng.exponential(1 / (3 * peak), count)).tolist()
    exits = rng.choice(3, count, p=(0.5, 0.25, 0.25)).tolist()
    sent, took, at = {}, [], 0
    while at < count:
        batch = bench.scheduler.next_batch()
        end = arrivals[at] if batch is None else bench.clock.now + bench.costs.seconds(batch.stage, len(batch))
        while at < count and arrivals[at] <= end:
            bench.clock.now = arrivals[at]
            with contextlib.suppress(OverloadedError):
                job = bench.job(exits[at], bound=bound)
                sent[id(job)] = job, bench.clock.now
            at += 1
        bench.clock.now = end
        if batch is not None:
            bench.scheduler.finish(batch, bench.result(batch), bench.costs.seconds(batch.stage, len(batch)))
        took += [end - sent[id(job)][1] for job in bench.scheduler.ended()]
    good = sum(seconds <= bound for seconds in took)
    assert good / arrivals[-1] >= 0.92 * peak
    assert np.percentile(took, 99) <= bound


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2), min_size=1, max_size=10),
            st.floats(0, 0.2),
            st.one_of(st.none(), st.floats(0, 0.1)),
            st.integers(1, 2),
        ),
        max_size=12,
    ),
    st.sampled_from([BATCHES_PAY, NOTHING_PAYS]),
)
def test_every_accepted_row_is_answered_once_by_its_exit(
    requests: list[tuple[list[int], float, float | None, int]], times: StageTimes
) -> None:
    bench, accepted = Bench(times, most_rows=30), []
    for values, bound, deadline, width in requests:
        bench.step()
        limit = None if deadline is None else bench.clock.now + deadline
        with contextlib.suppress(OverloadedError):
            accepted.append((values, deadline, bench.job(*values, bound=bound, width=width, deadline=limit)))
    bench.drain()
    assert bench.scheduler.rows == 0
    assert sorted(map(id, bench.ended)) == sorted(id(job) for _, _, job in accepted)
    for values, deadline, job in accepted:
        assert (job.exit_index <= values).all()
        assert deadline is not None or job.exit_index.tolist() == values
        assert job.outputs[:, 0].tolist() == (10 * np.array(values) + job.exit_index).tolist()


@pytest.mark.parametrize("cut", [False, True])
def test_no_memory_for_the_outputs_of_a_request_ends_it_once_and_no_other(
    cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its rows one exits at the first stage, or is cut there by its deadline; the others would have gone on."""
    bench = Bench()
    large = bench.job(*([1.0, 2.0] if cut else [0.0, 2.0]), deadline=0.013 if cut else None)
    other = bench.job(2.0)

    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(large, "record", no_memory)
    bench.drain()
    assert bench.ended == [large, other]
    assert isinstance(large.error, MemoryError)
    assert other.outputs.tolist() == [[22.0]]
    assert [rows for _, rows in bench.order[1:]] == [[2.0], [2.0]]  # of the other alone
    assert bench.scheduler.rows == 0
