"""The path starts without early exit, only ever lets more go, and is near the best that there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcompress.calibration.threshold_path import threshold_path
from sdcompress.calibration.thresholds import NEVER, choose_thresholds
from sdcompress.policies import exit_index_of


def problem(seed: int, samples: int, exits: int, levels: int = 10**6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exits whose mistakes are likelier where they are unsure."""
    rng = np.random.default_rng(seed)
    sure = rng.beta(4, 1, (exits, samples))
    confidences = (np.ceil(sure[:-1] * levels) / levels).astype(np.float32)
    return confidences, np.float32(rng.random((exits, samples)) >= sure**0.3), rng.uniform(0.2, 2.0, exits)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(1, 300),
    exits=st.integers(2, 5),
    levels=st.sampled_from([3, 10**6]),
)
def test_from_the_safest_on_more_and_more_leave(seed: int, samples: int, exits: int, levels: int) -> None:
    confidences, loss, stage_ms = problem(seed, samples, exits, levels)
    path = threshold_path(confidences, loss, stage_ms)
    assert path[0] == (NEVER,) * (exits - 1)
    left = np.stack([exit_index_of(confidences, thresholds) for thresholds in path])
    assert (np.diff(left, axis=0) <= 0).all()  # each sample, step by step, only leaves earlier
    assert len(set(path)) == len(path)
    assert all(np.float32(value) == value for step in path for value in step)
    np.testing.assert_array_equal(path, threshold_path(confidences, loss, stage_ms))


def test_steps_are_small() -> None:
    confidences, loss, stage_ms = problem(1, 4000, 4)
    costs = np.cumsum(stage_ms)
    path = threshold_path(confidences, loss, stage_ms)
    mean = np.array([costs[exit_index_of(confidences, thresholds)].mean() for thresholds in path]) / costs[-1]
    assert mean[0] == pytest.approx(1)
    assert np.diff(mean).min() > -0.06
    assert mean[-1] < 0.5


def test_at_the_same_loss_it_costs_about_what_the_best_thresholds_cost() -> None:
    confidences, loss, stage_ms = problem(2, 4000, 4)
    loss = np.maximum(loss - loss[-1], 0)  # what is counted: losses that the last exit has not
    costs = np.cumsum(stage_ms)

    def cost_and_loss(thresholds: tuple[float, ...]) -> tuple[float, float]:
        left = exit_index_of(confidences, thresholds)
        return float(costs[left].mean()), float(loss[left, np.arange(4000)].mean(dtype=np.float64))

    steps = [cost_and_loss(thresholds) for thresholds in threshold_path(confidences, loss, stage_ms)]
    for drop in (0.01, 0.03, 0.1):
        best, _ = cost_and_loss(choose_thresholds(confidences, loss, stage_ms, drop))
        assert min(cost for cost, loss in steps if loss <= drop) <= 1.06 * best


def test_what_an_exit_corrects_does_not_pay_for_its_mistakes() -> None:
    # the exit is right wherever the last one is not, by as many as it loses: counted together that would be no loss
    confidences = np.full((1, 100), 0.9, np.float32)
    loss = np.ones((2, 100), np.float32)
    loss[0, :30] = loss[1, 30:60] = 0
    confidences[0, 60:] = 0.95  # both wrong: free to leave
    path = threshold_path(confidences, loss, [1.0, 1.0])
    first = next(step for step in path if (exit_index_of(confidences, step) == 0).sum() >= 40)
    assert first == (float(np.float32(0.95)),)


def test_where_leaving_never_pays_there_is_no_early_exit_until_mistakes_cost_nothing() -> None:
    confidences = np.full((1, 10), 0.9, np.float32)
    loss = np.float32([[1] * 10, [0] * 10])
    path = threshold_path(confidences, loss, [1.0, 1.0])
    assert path[0] == (NEVER,)
    assert path[1:] == ((float(np.float32(0.9)),),)
