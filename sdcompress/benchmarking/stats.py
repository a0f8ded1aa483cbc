"""Statistics of measured times: percentiles with minimum sample sizes, and ratios with intervals.

Minimum sample sizes follow the early-stopping rule of MLPerf at confidence 0.99 (Reddi et al. 2020, loadgen). Intervals
of percentiles are order-statistic (binomial) intervals (David and Nagaraja, Order Statistics, 7.1). Bootstrap intervals
are widened for few rounds ("expanded percentile", Hesterberg 2015). Consecutive calls are not fully independent, so
that intervals of percentiles are slightly too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.schema.report import Latency, Percentile

__all__ = [
    "Ratio",
    "latency",
    "percentile",
    "ratio_of_means",
    "ratio_of_medians",
    "ratio_of_sums",
    "sample_floor",
    "verdict",
]

Times = npt.NDArray[np.float64]

_PERCENTILE_CONFIDENCE = 0.99
_RATIO_CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """A ratio with its 95 % interval."""

    value: float
    low: float
    high: float


@cache
def sample_floor(percent: float) -> int:
    """Return the minimum sample size of a percentile, by which two samples lie beyond it with 99 % probability.

    Args:
        percent: the percentile, 50 or more and below 100.

    Returns:
        The smallest n with P(Binomial(n, 1 - percent / 100) <= 1) <= 0.01: 11 for p50, 662 for p99.
    """
    beyond = 1.0 - percent / 100.0
    within = 1.0 - beyond

    def unlikely(n: int) -> bool:
        return within**n + n * beyond * within ** (n - 1) <= 1.0 - _PERCENTILE_CONFIDENCE

    high = 2
    while not unlikely(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if unlikely(middle) else (middle, high)
    return high


def percentile(ordered: Times, percent: float) -> Percentile:
    """Return a percentile (nearest rank) with its 99 % interval, without values below the minimum sample size.

    Args:
        ordered: sorted times, ms, shape [n].
        percent: the percentile, 50 or more and below 100.
    """
    needs = sample_floor(percent)
    n = len(ordered)
    if n < needs:
        return Percentile(percent=percent, value_ms=None, low_ms=None, high_ms=None, needs=needs)
    rank = math.ceil(n * percent / 100.0 - 1e-9)
    low, high = _order_interval(n, percent / 100.0)
    value, low_ms, high_ms = (float(ordered[index]) for index in (rank - 1, low, high))
    return Percentile(percent=percent, value_ms=value, low_ms=low_ms, high_ms=high_ms, needs=needs)


def latency(times: Times, percents: tuple[float, ...]) -> Latency:
    """Summarise all calls; none is trimmed.

    Args:
        times: ms of each call in order, shape [n], n at least 1.
        percents: the percentiles to report.
    """
    ordered = np.sort(times)
    mean = float(ordered.mean())
    return Latency(
        samples=len(ordered),
        mean_ms=mean,
        min_ms=float(ordered[0]),
        max_ms=float(ordered[-1]),
        cv=float(ordered.std() / mean),
        over_three_medians=int((ordered > 3.0 * np.median(ordered)).sum()),
        percentiles=tuple(percentile(ordered, percent) for percent in percents),
    )


def ratio_of_medians(reference: list[Times], other: list[Times], *, seed: int = 0) -> Ratio:
    """Return median of the reference / median of the other, with a bootstrap interval over rounds.

    Rounds are resampled, not calls, and the same rounds for both: calls of one round share the state of the machine.

    Args:
        reference: times of the reference, one array for each interleaved round.
        other: times of the other, the same number of rounds.
        seed: of the bootstrap.
    """
    counts = _drawn(len(reference), seed)
    reference_pool, other_pool = _Pool(reference), _Pool(other)
    every_round = np.ones(len(reference), dtype=np.int64)
    draws = np.array([reference_pool.median(count) / other_pool.median(count) for count in counts])
    return _interval(reference_pool.median(every_round) / other_pool.median(every_round), draws, len(reference))


def ratio_of_means(reference: list[Times], other: list[Times], *, seed: int = 0) -> Ratio:
    """Return mean of the reference / mean of the other, with an interval as in :func:`ratio_of_medians`."""
    return ratio_of_sums([reference], [other], seed=seed)


def ratio_of_sums(reference: list[list[Times]], other: list[list[Times]], *, seed: int = 0) -> Ratio:
    """Return the ratio of sums of means, for work whose parts were timed separately.

    Args:
        reference: for each part, one array for each interleaved round.
        other: the same of the other.
        seed: of the bootstrap.
    """
    rounds = len(reference[0])
    counts, every_round = _drawn(rounds, seed), np.ones((1, rounds), dtype=np.int64)
    value = float((_summed_means(reference, every_round) / _summed_means(other, every_round))[0])
    return _interval(value, _summed_means(reference, counts) / _summed_means(other, counts), rounds)


def verdict(ratio: Ratio) -> Literal["faster", "slower", "no difference"]:
    """Return the verdict on a speed-up; "no difference" if its interval contains 1."""
    if ratio.low > 1.0:
        return "faster"
    return "slower" if ratio.high < 1.0 else "no difference"


def _summed_means(parts: list[list[Times]], weights: npt.NDArray[np.int64]) -> Times:
    """Return the sum of the means of the parts for each resample, [draws]; weights [draws, rounds]."""
    sums = np.zeros(len(weights))
    for rounds in parts:
        total = weights @ np.array([times.sum() for times in rounds])
        sums += total / (weights @ np.array([len(times) for times in rounds]))
    return sums


class _Pool:
    """Times of all rounds, sorted once, so that the median of a resample is one cumulative sum."""

    def __init__(self, rounds: list[Times]) -> None:
        times = np.concatenate(rounds)
        order = np.argsort(times, kind="stable")
        self._times = times[order]
        self._round = np.repeat(np.arange(len(rounds)), [len(times) for times in rounds])[order]

    def median(self, counts: npt.NDArray[np.int64]) -> float:
        """Return the median (nearest rank) with round r counted ``counts[r]`` times."""
        reached = np.cumsum(counts[self._round])
        return float(self._times[np.searchsorted(reached, math.ceil(reached[-1] / 2))])


def _drawn(rounds: int, seed: int) -> npt.NDArray[np.int64]:
    """Return how often each round is drawn in each resample, [resamples, rounds]."""
    return np.random.default_rng(seed).multinomial(rounds, [1.0 / rounds] * rounds, size=_RESAMPLES)


def _interval(value: float, draws: Times, rounds: int) -> Ratio:
    tail = (1.0 - _RATIO_CONFIDENCE) / 2.0
    widened = NormalDist().cdf(math.sqrt(rounds / (rounds - 1)) * _student_quantile(tail, rounds - 1))
    low, high = np.quantile(draws, [widened, 1.0 - widened])
    return Ratio(value, float(low), float(high))


@cache
def _student_quantile(tail: float, freedom: int) -> float:
    """Return the negative quantile of Student's t with ``freedom`` degrees, by integrating its density from 0."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    x = np.linspace(0.0, 100.0, 400_001)
    density = scale * (1.0 + x**2 / freedom) ** (-(freedom + 1) / 2)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0) * (x[1] - x[0])])
    return -float(x[np.searchsorted(below, 0.5 - tail)])


def _order_interval(n: int, p: float) -> tuple[int, int]:
    """Return indices l <= u of sorted samples that enclose the p-quantile with at least 99 % confidence."""
    k = np.arange(n + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_mass = log_factorial[n] - log_factorial - log_factorial[::-1] + k * math.log(p) + (n - k) * math.log1p(-p)
    cumulative = np.cumsum(np.exp(log_mass))
    tail = (1.0 - _PERCENTILE_CONFIDENCE) / 2.0
    low = int(np.searchsorted(cumulative, tail, side="right"))  # P(fewer than low + 1 samples below) <= tail
    high = int(np.searchsorted(cumulative, 1.0 - tail))
    return max(low - 1, 0), min(high, n - 1)
