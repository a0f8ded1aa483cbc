"""The planned numbers of samples against draws of that size."""

from __future__ import annotations

import numpy as np
import pytest

from sdcompress.certification.p_values import betting_p_value, binomial_p_value
from sdcompress.certification.power_analysis import least_samples, samples_for_betting, samples_for_binomial


@pytest.mark.parametrize("max_drop", [0.0025, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("delta", [0.01, 0.05])
def test_below_the_least_number_not_even_no_loss_is_enough(max_drop: float, delta: float) -> None:
    exact, betting = (least_samples(max_drop, delta, exact=kind) for kind in (True, False))
    assert binomial_p_value(0, exact, max_drop) <= delta < binomial_p_value(0, exact - 1, max_drop)
    nothing = np.zeros(betting, np.int8)
    assert betting_p_value(nothing, max_drop, delta) <= delta < betting_p_value(nothing[1:], max_drop, delta)


def test_the_numbers_that_everybody_quotes() -> None:
    assert least_samples(0.01, 0.05, exact=True) == 299
    assert least_samples(0.05, 0.05, exact=True) == 59


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_binomial_power_is_what_was_asked_for(share: float) -> None:
    samples = samples_for_binomial(share * 0.02, 0.02, 0.05, power=0.8)
    assert samples is not None
    counts = np.random.default_rng(0).binomial(samples, share * 0.02, 4000)
    passed = np.mean([binomial_p_value(int(count), samples, 0.02) <= 0.05 for count in counts])
    assert 0.75 < passed < 0.88


@pytest.mark.parametrize(("lost", "gained"), [(0.008, 0.004), (0.012, 0.007), (0.03, 0.03)])
@pytest.mark.parametrize("power", [0.5, 0.8])
def test_betting_power_is_about_what_was_asked_for(lost: float, gained: float, power: float) -> None:
    samples = samples_for_betting((1, -1, 0), (lost, gained, 1 - lost - gained), 0.01, 0.05, power)
    assert samples is not None
    draws = np.random.default_rng(1).random((300, samples))
    losses = (draws < lost).astype(np.int8) - (draws > 1 - gained).astype(np.int8)
    passed = np.mean([betting_p_value(row, 0.01, 0.05) <= 0.05 for row in losses])
    assert power - 0.1 < passed < power + 0.17  # the best moment counts, not only the last: a plan on the safe side


def test_a_loss_at_alpha_needs_more_than_there_is() -> None:
    assert samples_for_binomial(0.01, 0.01, 0.05) is None
    assert samples_for_binomial(0.00999, 0.01, 0.05) is None
    assert samples_for_betting((1, -1, 0), (0.03, 0.02, 0.95), 0.01, 0.05) is None
    assert samples_for_betting((1, -1, 0), (0.02999, 0.02, 0.95001), 0.01, 0.05) is None
