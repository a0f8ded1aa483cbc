"""Percentiles, their floors and intervals, and ratios: against hand values, exact sums and simulated coverage."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcompress.benchmarking.stats import (
    Ratio,
    latency,
    percentile,
    ratio_of_means,
    ratio_of_medians,
    ratio_of_sums,
    sample_floor,
    verdict,
)


@pytest.mark.parametrize(("percent", "floor"), [(50, 11), (90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_the_floors_are_those_of_mlperf(percent: float, floor: int) -> None:
    assert sample_floor(percent) == floor


def test_a_percentile_is_the_nearest_rank_and_nothing_below_the_floor() -> None:
    times = np.arange(1.0, 101.0)  # 1, 2, ... 100
    assert percentile(times, 50.0).value_ms == 50.0
    assert percentile(times, 90.0).value_ms == 90.0
    p99 = percentile(times, 99.0)
    assert (p99.value_ms, p99.low_ms, p99.high_ms, p99.needs) == (None, None, None, 662)


@pytest.mark.parametrize(("n", "percent"), [(11, 50), (100, 50), (64, 90), (200, 90), (130, 95), (662, 99)])
def test_the_interval_is_the_narrowest_symmetric_one_of_the_binomial(n: int, percent: int) -> None:
    estimate = percentile(np.arange(1.0, n + 1.0), percent)  # the time is its own rank
    assert estimate.low_ms is not None
    assert estimate.high_ms is not None
    p = percent / 100
    below = np.cumsum([comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])  # P(at most k samples below)
    low, high = int(estimate.low_ms), int(estimate.high_ms)
    assert below[low - 1] <= 0.005 < below[low]
    assert below[high - 1] >= 0.995 > below[high - 2]


def test_percentile_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    truth = 1.2815515655  # of a standard normal, p90
    hits = 0
    for _ in range(2000):
        estimate = percentile(np.sort(rng.normal(size=200)), 90.0)
        hits += estimate.low_ms <= truth <= estimate.high_ms  # type: ignore[operator] - 200 are enough for p90
    assert hits / 2000 >= 0.985


def test_latency_trims_nothing() -> None:
    estimate = latency(np.array([1.0] * 19 + [41.0]), (50.0, 99.0))
    assert (estimate.samples, estimate.mean_ms, estimate.min_ms, estimate.max_ms) == (20, 3.0, 1.0, 41.0)
    assert estimate.over_three_medians == 1
    assert estimate.cv == pytest.approx(np.sqrt(19 * 4 + 38**2) / np.sqrt(20) / 3)  # deviations: 19 times -2, once 38
    assert [p.value_ms for p in estimate.percentiles] == [1.0, None]


@given(
    st.lists(st.lists(st.floats(0.1, 100.0), min_size=1, max_size=9), min_size=5, max_size=5),
    st.floats(0.25, 4.0),
)
def test_an_engine_that_takes_c_times_as_long_has_the_ratio_c_without_doubt(
    rounds: list[list[float]], c: float
) -> None:
    slow, fast = [c * np.array(r) for r in rounds], [np.array(r) for r in rounds]
    for ratio in (ratio_of_medians(slow, fast), ratio_of_means(slow, fast)):
        assert (ratio.value, ratio.low, ratio.high) == pytest.approx((c, c, c))


def test_the_ratio_of_sums_adds_the_means_of_parts_that_were_timed_apart() -> None:
    # means: 1 + 4 of the one, 1 + 1.5 of the other, whatever the number of calls in a part
    reference = [[np.array([1.0, 1.0])] * 5, [np.array([4.0])] * 5]
    other = [[np.array([1.0])] * 5, [np.array([1.0, 2.0, 1.5])] * 5]
    estimate = ratio_of_sums(reference, other)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2.0, 2.0, 2.0))
    rng = np.random.default_rng(0)
    slow, fast = ([scale * rng.lognormal(0, 0.1, 20) for _ in range(10)] for scale in (2, 1))
    assert ratio_of_sums([slow], [fast], seed=1) == ratio_of_means(slow, fast, seed=1)


def test_the_ratio_of_medians_pools_the_calls_of_all_rounds() -> None:
    reference = [np.array([4.0, 4.0, 100.0])] * 5
    other = [np.array([1.0]), np.array([2.0, 2.0, 2.0])] * 3  # 3 ones, 9 twos
    assert ratio_of_medians([*reference, reference[0]], other).value == 2.0


@pytest.mark.parametrize("rounds", [5, 10])
def test_ratio_intervals_hold_the_truth_as_often_as_they_say(rounds: int) -> None:
    rng = np.random.default_rng(rounds)

    def machine() -> list[np.ndarray]:
        moods = np.exp(rng.normal(0.0, 0.05, rounds))
        return [mood * rng.lognormal(0.0, 0.1, 20) for mood in moods]

    pairs = [(machine(), machine()) for _ in range(200)]
    for ratio in (ratio_of_medians, ratio_of_means):
        estimates = [ratio(*pair, seed=i) for i, pair in enumerate(pairs)]
        hits = sum(r.low <= 1.0 <= r.high for r in estimates)
        assert 0.90 <= hits / 200 <= 0.99  # 95 % give or take three standard errors


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = ([rng.random(7) + 1 for _ in range(5)] for _ in "ab")
    assert ratio_of_medians(a, b, seed=3) == ratio_of_medians(a, b, seed=3)
    assert ratio_of_means(a, b, seed=3) != ratio_of_means(a, b, seed=4)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(1.01, 1.2, "faster"), (0.8, 0.99, "slower"), (0.9, 1.1, "no difference"), (1.0, 1.1, "no difference")],
)
def test_the_verdict_is_no_difference_where_the_interval_holds_one(low: float, high: float, said: str) -> None:
    assert verdict(Ratio(1.0, low, high)) == said
