"""The figures of ten samples under three exits, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdcompress.explaining.exit_analysis import ExitAnalysis, Outcomes
from sdcompress.explaining.timing import Timing

NAMES = ("exit1", "exit2", "final")
TURNS = np.tile([1.0, 2.0, 4.0], (6, 1))
NOTHING = np.zeros(6)
# the first six are sure and right at exit1; the last is never right; the others are right from exit2 on
LOSS = 1 - np.float32([[1] * 6 + [0] * 4, [1] * 9 + [0], [1] * 9 + [0]])
SCORES = np.array([[0.9] * 6 + [0.4] * 4, [0.8] * 10], np.float32)
LABELS = np.array([0] * 5 + [1] * 5)


def case(thresholds: tuple[float, ...] | None, **changed: Any) -> ExitAnalysis:
    outcomes = Outcomes(SCORES, np.concatenate([SCORES, SCORES[-1:]]), LOSS, LABELS, True)
    fields = {
        "shared": False,
        "outcomes": outcomes,
        "timing": Timing(TURNS, NOTHING),
        "macs": np.array([10.0, 20.0, 40.0]),
    }
    return ExitAnalysis(names=NAMES, thresholds=thresholds, **{**fields, **changed})


def test_the_policy_wins_where_it_is_faster_than_the_exit_that_is_as_accurate() -> None:
    figures = case((0.5, 0.5)).policy()
    assert figures is not None
    assert figures.point.shares == (0.6, 0.4, 0)
    assert figures.point.metric == 0.9
    assert figures.point.mean_ms == pytest.approx(0.6 * 1 + 0.4 * 2)
    assert figures.point.mean_macs == pytest.approx(0.6 * 10 + 0.4 * 20)
    assert (figures.rival, figures.verdict) == ("exit2", "wins")
    assert [row.saving_ms.value for row in figures.truncations] == pytest.approx([1 - 1.4, 2 - 1.4, 4 - 1.4])
    assert [row.difference.value for row in figures.truncations] == pytest.approx([0.3, 0, 0])


def test_a_margin_is_there_for_every_early_exit_that_somebody_gets_to() -> None:
    figures = case((0.5, 0.5), timing=Timing(TURNS, NOTHING + 0.5)).policy()
    assert figures is not None
    assert [(margin.exit, margin.reached) for margin in figures.break_even] == [("exit1", 1), ("exit2", 0.4)]
    # 0.6 of 1 ms less 0.4 * 0.5 for deciding; at exit2 all that get there leave: 2 ms less 0.5
    assert [margin.ms.value for margin in figures.break_even] == pytest.approx([0.4, 1.5])
    everybody = case((0.0, 0.5)).policy()
    assert everybody is not None
    assert [margin.exit for margin in everybody.break_even] == ["exit1"]
    assert case((0.5, 0.5), timing=None).policy().break_even == ()  # type: ignore[union-attr]


def test_the_policy_loses_by_ms_where_the_truncated_network_is_as_accurate() -> None:
    # four samples go the whole way: 0.6 + 1.6 ms, and exit2 alone takes 2 ms
    figures = case((0.5, 2.0)).policy()
    assert figures is not None
    assert (figures.rival, figures.verdict) == ("exit2", "loses")
    assert figures.point.mean_ms == pytest.approx(2.2)


def test_what_deciding_costs_can_lose_it() -> None:
    # 1.4 ms and 0.6 * 0.5 + 0.4 * 2 * 0.5 for deciding are 2.1
    figures = case((0.5, 0.5), timing=Timing(TURNS, NOTHING + 0.5)).policy()
    assert figures is not None
    assert figures.point.mean_ms == pytest.approx(2.1)
    assert figures.verdict == "loses"


def test_a_saving_that_some_turn_does_not_show_is_no_difference() -> None:
    noisy = TURNS.copy()
    noisy[0] = [1.0, 1.2, 4.0]  # in this turn 0.6 + 0.48 + 0.42 ms against 1.2, in the others 1.82 against 2
    figures = case((0.5, 0.5), timing=Timing(noisy, NOTHING + 0.3)).policy()
    assert figures is not None
    saving = figures.truncations[1].saving_ms
    assert (saving.value, saving.low) == (pytest.approx(0.18), pytest.approx(-0.3))
    assert (figures.rival, figures.verdict) == ("exit2", "no difference")


def test_where_no_exit_is_as_accurate_the_policy_is_held_against_the_last() -> None:
    loss = LOSS.copy()
    loss[1:, 0] = 1  # what exit1 has right and lets go, the others spoil
    figures = case(
        (0.5, 0.5), outcomes=Outcomes(SCORES, np.concatenate([SCORES, SCORES[-1:]]), loss, LABELS, False)
    ).policy()
    assert figures is not None
    assert (figures.rival, figures.verdict) == (None, "wins")


def test_without_measured_stages_there_is_no_verdict_and_no_curve() -> None:
    figures = case((0.5, 0.5), timing=None)
    assert figures.policy() is not None
    assert figures.policy().verdict is None  # type: ignore[union-attr]
    assert figures.curve(figures.outcomes) == ()
    assert figures.oracle().mean_ms is None


def test_the_curve_is_made_on_other_samples_and_shown_on_these() -> None:
    analysis = case(None)
    path_outcomes = Outcomes(
        SCORES, analysis.outcomes.confidences, np.zeros_like(LOSS), LABELS, True
    )  # there nothing is ever lost
    figures = analysis.curve(path_outcomes)
    assert (figures[0].shares, figures[0].mean_ms, figures[0].metric) == ((0, 0, 1), 4, 0.9)
    assert (figures[-1].shares, figures[-1].mean_ms, figures[-1].metric) == ((1, 0, 0), 1, 0.6)
    times = [point.mean_ms for point in figures]
    assert times == sorted(times, reverse=True)


def test_exits_and_strata() -> None:
    analysis = case((0.5, 0.5))
    first, second, last = analysis.exits()
    assert (first.metric, first.share, first.exited_metric) == (0.6, 0.6, 1)
    assert (second.share, second.exited_metric, second.macs) == (0.4, pytest.approx(3 / 4), 20)
    assert (last.share, last.exited_metric) == (0, None)
    assert first.auroc == 1  # all that are right are surer than all that are wrong
    assert second.auroc == 0.5  # one confidence for all
    assert first.ece == pytest.approx(0.6 * 0.1 + 0.4 * 0.4)
    zero, one = analysis.strata(["zero", "one"])
    assert (zero.name, zero.samples, zero.shares, zero.metric) == ("zero", 5, (1, 0, 0), 1)
    assert (one.shares, one.metric, one.last_exit_metric) == ((0.2, 0.8, 0), 0.8, 0.8)
    assert [figures.name for figures in analysis.strata(["zero", "one", "never seen"])] == ["zero", "one"]


def test_oracle_and_overthinking() -> None:
    analysis = case((0.5, 0.5))
    oracle = analysis.oracle()
    assert oracle.metric == 0.9
    assert oracle.mean_ms == pytest.approx(0.6 * 1 + 0.3 * 2 + 0.1 * 4)
    last_exit = analysis.overthinking(np.full(10, 2))
    assert last_exit is not None
    assert last_exit.wasteful == 0.9
    assert last_exit.wasted_ms == pytest.approx(0.6 * 3 + 0.3 * 2)
    assert analysis.overthinking(analysis.exit_index).wasteful == 0  # type: ignore[union-attr]
