"""The clock, on calls whose time and answers are known."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import pytest

from sdcompress.benchmarking.timed_calls import TimedCall, no_collection

BATCHES = [np.full((2, 1, 1, 1), index, dtype=np.float32) for index in range(4)]


@dataclass
class Answer:
    decision: np.ndarray
    exit_index: np.ndarray


class Busy:
    """Computes for a known time; class = index of the batch, exit = index modulo 2."""

    def __init__(self, ms: float = 0.0) -> None:
        self.ms = ms
        self.seen: list[int] = []

    def __call__(self, inputs: np.ndarray) -> Answer:
        end = perf_counter_ns() + int(self.ms * 1e6)
        index = int(inputs[0, 0, 0, 0])
        self.seen.append(index)
        while perf_counter_ns() < end:
            pass
        return Answer(np.array([index, index]), np.array([index % 2] * 2))


def test_a_call_is_measured_as_long_as_it_takes() -> None:
    timed_call = TimedCall(Busy(ms=2.0), BATCHES)
    timed_call.measure(0.05)
    assert timed_call.ms.min() >= 2.0
    assert np.median(timed_call.ms) < 2.2
    assert 10 <= len(timed_call.ms) <= 25


def test_inputs_go_round_in_order_and_a_round_goes_on_where_the_last_one_stopped() -> None:
    call = Busy()
    timed_call = TimedCall(call, BATCHES)
    for _ in range(5):
        timed_call.measure(0.0)  # one call each, after one that is not measured
    assert call.seen == [3, 0, 0, 1, 1, 2, 2, 3, 3, 0]
    assert [len(times) for times in timed_call.rounds] == [1] * 5
    assert timed_call.exit_index.tolist() == [[0, 0], [1, 1], [0, 0], [1, 1], [0, 0]]
    assert timed_call.first_decisions.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]


def test_warm_up_lasts_for_the_time_and_for_ten_calls() -> None:
    few, long = Busy(ms=1.0), Busy()
    TimedCall(few, BATCHES).warm_up(0.0)
    assert len(few.seen) == 10
    start = perf_counter_ns()
    TimedCall(long, BATCHES).warm_up(30.0)
    assert perf_counter_ns() - start >= 30e6
    assert len(long.seen) > 10


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_off_inside_and_as_it_was_after(before: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with no_collection():
            assert not gc.isenabled()
        assert gc.isenabled() is before
    finally:
        (gc.enable if was else gc.disable)()
