"""p-values against scipy and the definition, and their promise under the null hypothesis."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcompress.certification.p_values import betting_p_value, binomial_p_value

ALPHAS = st.floats(0.001, 0.3)
DELTAS = st.sampled_from([0.01, 0.05, 0.1, 0.5])


@settings(max_examples=300, deadline=None)
@given(samples=st.integers(1, 5000), share=st.floats(0, 1), alpha=st.floats(1e-6, 1 - 1e-6))
def test_binomial_is_scipys(samples: int, share: float, alpha: float) -> None:
    errors = round(share * samples)
    expected = scipy.stats.binom.cdf(errors, samples, alpha)
    # below 1e-260 scipy's own result is inexact or 0; see the next test
    assert binomial_p_value(errors, samples, alpha) == pytest.approx(expected, rel=1e-8, abs=1e-250)


@pytest.mark.parametrize(
    ("errors", "samples", "alpha"), [(35, 723, 0.656), (31, 559, 0.75), (3, 40, 0.01), (0, 900, 0.5)]
)
def test_binomial_is_exact_arithmetic(errors: int, samples: int, alpha: float) -> None:
    share = Fraction(alpha)
    exact = sum(math.comb(samples, k) * share**k * (1 - share) ** (samples - k) for k in range(errors + 1))
    assert binomial_p_value(errors, samples, alpha) == pytest.approx(float(exact), rel=1e-10, abs=0)


def test_binomial_at_a_million_samples() -> None:
    expected = scipy.stats.binom.cdf(9_700, 10**6, 0.01)
    assert binomial_p_value(9_700, 10**6, 0.01) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("errors", "samples", "alpha", "p_value"),
    [(0, 1, 0.25, 0.75), (1, 2, 0.5, 0.75), (3, 3, 0.1, 1.0), (0, 5, 0.0, 1.0), (0, 5, 1.0, 0.0), (-1, 5, 0.5, 0.0)],
)
def test_binomial_by_hand(errors: int, samples: int, alpha: float, p_value: float) -> None:
    assert binomial_p_value(errors, samples, alpha) == pytest.approx(p_value, rel=1e-14)


def test_binomial_allows_what_tables_say() -> None:
    # errors that certify 1 % at 95 %: the published arithmetic of the exact test
    for samples, allowed in ((500, 1), (1000, 4), (2000, 12), (5000, 38), (10_000, 83), (50_000, 463)):
        assert binomial_p_value(allowed, samples, 0.01) <= 0.05 < binomial_p_value(allowed + 1, samples, 0.01)


@pytest.mark.parametrize("wrong", [1.1, math.nan])
def test_losses_that_a_bet_could_not_survive_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="at most 1"):
        betting_p_value(np.array([0.5, wrong]), 0.1, 0.05)


def by_definition(losses: list[float], alpha: float, delta: float) -> float:
    """Sums written out for every sample: what is known before it decides the bet on it."""
    count, wealth, richest, squares = len(losses), 1.0, 1.0, 0.25
    for i in range(count):
        spread = squares / (i + 1)
        missing = math.log(1 / delta) - math.log(wealth)
        bet = min(1.0, math.sqrt(2 * missing / ((count - i) * max(spread, alpha * (1 - alpha)))))
        wealth *= 1 - bet * (losses[i] - alpha)
        squares += (losses[i] - alpha) ** 2
        richest = max(richest, wealth)
        if richest >= 1 / delta:
            break
    return 1 / richest


@settings(max_examples=150, deadline=None)
@given(losses=st.lists(st.sampled_from([-1, 0, 0, 0, 0, 0, 1]), min_size=1, max_size=120), alpha=ALPHAS, delta=DELTAS)
def test_betting_is_its_definition(losses: list[int], alpha: float, delta: float) -> None:
    found = betting_p_value(np.array(losses, np.int8), alpha, delta)
    assert found == pytest.approx(by_definition(losses, alpha, delta), rel=1e-10)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, 199), alpha=ALPHAS)
def test_a_bet_knows_nothing_of_its_own_sample_or_later_ones(seed: int, cut: int, alpha: float) -> None:
    """Losses above alpha only lower the wealth: which ones follow changes nothing, if no bet before has seen them."""
    first = np.random.default_rng(seed).choice([-1, 0, 0, 0, 1], size=cut)
    p_values = {betting_p_value(np.concatenate([first, np.full(200 - cut, x)]), alpha, 0.05) for x in (0.4, 0.7, 1.0)}
    assert len(p_values) == 1


@pytest.mark.parametrize("samples", [257, 750, 20_000])
def test_bets_that_change_block_by_block_lose_next_to_nothing(samples: int) -> None:
    """Blocks of 2, 3 and 79 samples: the p-value of a draw that nearly fails, with a new bet for each sample or not."""
    losses = np.zeros(samples, np.int8)
    losses[:: samples // 6] = 1
    alpha = 12 / samples
    assert betting_p_value(losses, alpha, 0.01) == pytest.approx(by_definition(losses.tolist(), alpha, 0.01), rel=0.25)


def test_a_million_samples_neither_overflow_nor_ruin() -> None:
    for loss, least, most in ((0, 0.01, 0.05), (1, 0.9, 1.0), (-1, 0.0, 0.05)):
        assert least <= betting_p_value(np.full(10**6, loss, np.int8), 0.01, 0.05) <= most


def test_no_drop_at_all_cannot_be_certified() -> None:
    assert betting_p_value(np.zeros(1000, np.int8), 0.0, 0.05) == 1.0
    assert betting_p_value(np.zeros(0, np.int8), 0.5, 0.05) == 1.0


def no_more_than(share: float, runs: int) -> int:
    """A count that a Bin(runs, share) exceeds once in 10,000 times."""
    return int(scipy.stats.binom.ppf(0.9999, runs, share))


RUNS, SAMPLES, ALPHA, DELTA = 1000, 1200, 0.02, 0.05


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.0), (0.03, 0.01), (0.07, 0.05), (0.51, 0.49)])
@pytest.mark.parametrize("samples", [200, SAMPLES])
def test_at_a_true_drop_of_alpha_betting_rejects_no_more_often_than_delta(
    lost: float, gained: float, samples: int
) -> None:
    rng = np.random.default_rng(5)
    draws = rng.random((RUNS, samples))
    losses = (draws < lost).astype(np.int8) - (draws > 1 - gained).astype(np.int8)
    p_values = np.array([betting_p_value(row, ALPHA, DELTA) for row in losses])
    for level in (DELTA, 0.2, 0.5):  # bets are sized for delta, and the p-value is one at other levels too
        assert (p_values <= level).sum() <= no_more_than(level, RUNS)
    # at alpha itself it is not blind: a test that never rejects would pass the lines above
    assert samples < SAMPLES or (p_values <= DELTA).sum() > RUNS * 0.01


@pytest.mark.parametrize(
    ("values", "first"), [((-0.24, 0.28), 0.5), ((-1.0, 0.04), 0.02 / 1.04), ((0.0, 0.04), 0.5), ((-9.0, 1.0), 0.098)]
)
def test_at_a_mean_of_alpha_other_losses_are_no_worse(values: tuple[float, float], first: float) -> None:
    """Two-point losses, also below -1: evenly spread, mostly a little too high, never negative, mostly ruinous."""
    losses = np.where(np.random.default_rng(8).random((RUNS, SAMPLES)) < first, *values)
    rejected = sum(betting_p_value(row, ALPHA, DELTA) <= DELTA for row in losses)
    assert rejected <= no_more_than(DELTA, RUNS)


def test_at_a_true_loss_of_alpha_the_exact_test_rejects_as_often_as_it_says() -> None:
    counts = np.random.default_rng(6).binomial(SAMPLES, ALPHA, RUNS)
    rejected = sum(binomial_p_value(int(count), SAMPLES, ALPHA) <= DELTA for count in counts)
    assert RUNS * 0.02 < rejected <= no_more_than(DELTA, RUNS)
