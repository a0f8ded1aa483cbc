"""The last rejected hypothesis, not the first that fails; and the mean that conformal risk control keeps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from mapie.risk_control.fwer_control import FWERFixedSequenceTesting

from sdcompress.certification.certify import conformal_risk_control, fixed_sequence
from sdcompress.certification.p_values import binomial_p_value

P_VALUES = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.05])), max_size=12)


@pytest.mark.parametrize(
    ("p_values", "rejected", "tested"),
    [
        ([], 0, 0),
        ([0.2, 0.0], 0, 1),
        ([0.01, 0.05, 0.06, 0.0], 2, 3),  # what equals delta is rejected; what comes after the stop is not looked at
        ([0.0, 0.0, 0.0], 3, 3),
        ([0.0, float("nan"), 0.0], 1, 2),
    ],
)
def test_by_hand(p_values: list[float], rejected: int, tested: int) -> None:
    found = fixed_sequence(p_values, 0.05)
    assert found[0] == rejected
    np.testing.assert_equal(found[1], tuple(p_values[:tested]))


@given(p_values=P_VALUES, delta=st.floats(0.001, 0.5))
def test_the_result_is_mapies(p_values: list[float], delta: float) -> None:
    expected = FWERFixedSequenceTesting(n_starts=1).run(np.array(p_values), delta) if p_values else []
    assert fixed_sequence(p_values, delta)[0] == len(expected)


def test_nothing_is_computed_after_the_stop() -> None:
    def p_values() -> Iterator[float]:
        yield 0.0
        yield 0.9
        raise AssertionError("a p-value after the stop was asked for")

    assert fixed_sequence(p_values(), 0.05)[0] == 1


@pytest.mark.parametrize("steps", [20, 50])
def test_the_step_that_ships_keeps_the_loss_and_the_one_after_it_does_not(steps: int) -> None:
    """Public code has shipped the index at which testing stops, one too far: the coarser the path, the surer."""
    alpha, delta, samples, runs = 0.01, 0.05, 5000, 400
    truth = np.linspace(0, 0.5, steps)[1:] ** 2  # of every step after "nobody leaves"
    rng = np.random.default_rng(3)
    broken = off_by_one = 0
    for _ in range(runs):
        uniform = np.sort(rng.random(samples))  # nested losses, as along a path
        errors = np.searchsorted(uniform, truth)
        rejected = fixed_sequence((binomial_p_value(int(e), samples, alpha) for e in errors), delta)[0]
        broken += rejected > 0 and truth[rejected - 1] > alpha
        off_by_one += truth[rejected] > alpha
    assert broken <= scipy.stats.binom.ppf(0.9999, runs, delta)
    assert off_by_one > runs * 4 * delta


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**32 - 1), st.floats(0, 0.5))
def test_conformal_risk_control_is_its_formula(settings: int, samples: int, seed: int, alpha: float) -> None:
    losses = np.random.default_rng(seed).choice([-1, 0, 0, 1], (settings, samples))
    count = conformal_risk_control(losses, alpha)
    bounds = [
        samples / (samples + 1) * np.mean([losses[: step + 1, row].max() for row in range(samples)]) + 1 / (samples + 1)
        for step in range(settings)
    ]
    assert all(bound <= alpha + 1e-12 for bound in bounds[:count])
    assert count == settings or bounds[count] > alpha - 1e-12


def test_conformal_risk_control_keeps_the_mean_but_not_every_calibration() -> None:
    alpha, samples, runs = 0.05, 400, 3000
    truth = np.linspace(0, 0.2, 101)
    rng = np.random.default_rng(4)
    kept = []
    for _ in range(runs):
        losses = rng.random(samples) < truth[:, None]  # a sample that is lost stays lost along the row
        kept.append(truth[max(0, conformal_risk_control(losses.astype(np.int8), alpha) - 1)])
    assert np.mean(kept) <= alpha + 3 * np.std(kept) / runs**0.5
    assert 0.2 < np.mean(np.array(kept) > alpha) < 0.6
