"""Compute the number of samples that a certificate needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from sdcompress.certification.p_values import betting_p_value, binomial_p_value

__all__ = ["MOST_SAMPLES", "least_samples", "samples_for_betting", "samples_for_binomial", "samples_for_loss"]

MOST_SAMPLES = 10**6  # beyond this it is no plan


def least_samples(max_drop: float, delta: float, *, exact: bool = False) -> int:
    """Return the number of samples below which nothing is certified, even if no sample loses.

    Args:
        max_drop: alpha, in (0, 1).
        delta: of the test, in (0, 1).
        exact: for the binomial test, which needs a few samples less than the betting test.
    """
    if exact:
        return math.ceil(round(math.log(delta) / math.log1p(-max_drop), 9))
    # no loss leaves a wealth of at most (1 + alpha)^n, so there is none below this
    count = max(1, int(math.log(1 / delta) / math.log1p(max_drop)))
    while betting_p_value(np.zeros(count), max_drop, delta) > delta:
        count += 1
    return count


def samples_for_binomial(rate: float, max_drop: float, delta: float, power: float = 0.8) -> int | None:
    """Return the number of samples, to within 1 %, with which the exact test certifies alpha with this power.

    A few more samples may have less power, by some points: the number of losses that the test allows rises in steps.

    Args:
        rate: the true share of losses, in [0, 1).
        max_drop: alpha, in (0, 1).
        delta: of the test, in (0, 1).
        power: probability that the test certifies.

    Returns:
        None if ``rate`` is not below alpha, or more than a million are needed.
    """
    if rate >= max_drop:
        return None

    def enough(samples: int) -> bool:
        low, high = -1, math.ceil(samples * max_drop)  # the test is passed with low errors, and not with high
        while high - low > 1:
            middle = (low + high) // 2
            passes = binomial_p_value(middle, samples, max_drop) <= delta
            low, high = (middle, high) if passes else (low, middle)
        return low >= 0 and binomial_p_value(low, samples, rate) >= power

    return _first(enough, least_samples(max_drop, delta, exact=True))


def samples_for_betting(
    values: npt.ArrayLike, shares: npt.ArrayLike, max_drop: float, delta: float, power: float = 0.8
) -> int | None:
    """Return the number of samples with which the betting test certifies alpha with about this power.

    The logarithm of the wealth is a sum over the samples. With one bet, sized by the true variance, its mean and
    variance are known, and the sum is taken as normal. One bet must reach ln(1 / delta), which is a distance of
    sqrt(2 ln(1 / delta)) deviations from alpha. A test that knows the variance needs the normal quantile of delta.
    Bets that are sized anew lie half-way between, by simulation. In simulations a power of 80 % that is asked
    for comes out as 79 to 89 %.

    Args:
        values: [M] in [-1, 1], that a sample's loss can have.
        shares: [M], of the samples with each value.
        max_drop: alpha, in (0, 1).
        delta: of the test, in (0, 1).
        power: probability that the test certifies.

    Returns:
        None if the mean loss is not below alpha, or more than a million are needed.
    """
    values, shares = np.asarray(values, np.float64), np.asarray(shares, np.float64)
    if shares @ values >= max_drop:
        return None
    variance = float(shares @ values**2 - (shares @ values) ** 2)
    quantile, single = NormalDist().inv_cdf(power), math.sqrt(2 * math.log(1 / delta))
    goal = ((single - NormalDist().inv_cdf(delta)) / 2) ** 2 / 2

    def enough(samples: int) -> bool:
        bet = min(1.0, single / math.sqrt(samples * max(variance, max_drop * (1 - max_drop))))
        gains = np.log1p(-bet * (values - max_drop))
        mean = float(shares @ gains)
        deviation = math.sqrt(max(0.0, float(shares @ gains**2) - mean**2))
        return samples * mean - quantile * deviation * math.sqrt(samples) >= goal

    return _first(enough, least_samples(max_drop, delta))


def samples_for_loss(lost: float, max_drop: float, delta: float, power: float = 0.8) -> int | None:
    """Return ``samples_for_betting`` if a share ``lost`` of the samples has the loss 1, and the others 0."""
    return samples_for_betting((1.0, 0.0), (lost, 1 - lost), max_drop, delta, power)


def _first(enough: Callable[[int], bool], least: int) -> int | None:
    """Return the smallest number that is enough, to within 1 %; a larger one is taken to be enough too."""
    if enough(least):
        return least
    low, high = least, 2 * least
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_SAMPLES:
            return None
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
