"""Milliseconds in turns: the arithmetic by hand, and a real engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.explaining import timing
from sdcompress.explaining.timing import Timing, measure
from sdcompress.runtime.open import open_engine
from sdcompress.schema.explain import Interval

# three rounds of two exits; deciding is done once, whether a sample leaves at the first exit or goes on
TIMING = Timing(np.array([[1.0, 3.0], [2.0, 4.0], [1.0, 5.0]]), decision_ms_by_round=np.array([0.5, 0.25, 0.75]))


def test_an_exit_takes_the_median_of_the_rounds() -> None:
    assert TIMING.reach_ms.tolist() == [1, 4]
    assert TIMING.decision_ms == 0.5
    assert TIMING.reach_ms_with_decisions.tolist() == [1.5, 4.5]
    assert TIMING.until(1) == Interval(value=4, low=3, high=5)


def test_a_decision_is_made_at_each_exit_but_the_last() -> None:
    three = Timing(np.array([[1.0, 2.0, 3.0]]), decision_ms_by_round=np.array([0.1]))
    assert three.reach_ms_with_decisions == pytest.approx([1.1, 2.2, 3.2])


def test_a_mean_and_its_ends_are_over_the_same_rounds() -> None:
    # with deciding the rounds are 2.5, 3.25 and 3.75; the medians of the exits give (1.5 + 4.5) / 2
    assert TIMING.mean([0.5, 0.5]) == Interval(value=3, low=2.5, high=3.75)
    # less than the last exit 3 - 2.5, 4 - 3.25 and 5 - 3.75
    assert TIMING.saving([0.5, 0.5], 1) == Interval(value=1, low=0.5, high=1.25)


def test_an_exit_may_cost_what_leaving_there_saves_less_the_decisions() -> None:
    timing = Timing(np.array([[1.0, 2.0, 5.0], [1.0, 3.0, 5.0]]), decision_ms_by_round=np.array([0.1, 0.1]))
    # a quarter leaves at the first exit and saves 1 or 2 ms; three quarters decide there for nothing, as who leaves
    # would decide at the second one
    margin = timing.margin([0.25, 0.5, 0.25], 0)
    assert (margin.low, margin.value, margin.high) == pytest.approx((0.25 - 0.075, 0.375 - 0.075, 0.5 - 0.075))
    # two thirds of those who get to the second leave, and save 3 or 2 ms; all decide, the last exit does not
    margin = timing.margin([0.25, 0.5, 0.25], 1)
    assert (margin.low, margin.value, margin.high) == pytest.approx((4 / 3 - 0.1, 5 / 3 - 0.1, 2 - 0.1))
    assert timing.margin([0.0, 0.5, 0.5], 0).high == pytest.approx(-0.1)  # nobody leaves, and all decide


def test_a_real_cascade(tiny_artifact: Callable[..., Path], tiny_network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_SECONDS", 0.01)
    samples = tiny_network.samples(20)
    measured = measure(open_engine(tiny_artifact(policy=(0.6, 0.6)), threads=1), samples)
    assert measured.reach_ms_by_round.shape == (6, 3)
    assert (np.diff(measured.reach_ms_by_round, axis=1) > 0).all()
    assert 0 <= measured.decision_ms < 1
    assert measure(open_engine(tiny_artifact("single"), threads=1), samples).decision_ms == 0
