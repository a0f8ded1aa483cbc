"""How quantities are written."""

from __future__ import annotations

import numpy as np
import pytest

from sdcompress.reporting import quantities as q
from sdcompress.schema.report import Percentile
from sdcompress.tasks import standard_error


def test_wilson_against_the_published_example() -> None:
    # Newcombe 1998, table I: 81 of 263, method 3
    assert q.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert q.wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_wilson_holds_the_estimate_where_all_or_none_are_right() -> None:
    z2 = 1.959964**2
    for n in range(1, 10_001):
        none, everything = q.wilson(0.0, n), q.wilson(1.0, n)
        assert (none[0], everything[1]) == (0.0, 1.0)  # exactly: a plot refuses an error bar below 0
        assert none[1] == pytest.approx(z2 / (n + z2), rel=1e-12)
        assert everything[0] == pytest.approx(n / (n + z2), rel=1e-12)


def test_wilson_holds_every_estimate_of_a_few_samples() -> None:
    for n in range(1, 60):
        for right in range(n + 1):
            low, high = q.wilson(right / n, n)
            assert 0 <= low <= right / n <= high <= 1


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.01234, "0.0123 ms"),
        (1.2345, "1.23 ms"),
        (9.996, "10.0 ms"),
        (0.09999, "0.100 ms"),
        (12.345, "12.3 ms"),
        (123.45, "123 ms"),
        (1234.5, "1234 ms"),
        (0.0, "0 ms"),
        (None, "-"),
    ],
)
def test_times_have_three_digits(value: float | None, written: str) -> None:
    assert q.milliseconds(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(950, "950"), (11_173_962, "11.2 M"), (1_234, "1.23 k"), (999_999, "1.00 M"), (4.1e9, "4.10 G"), (None, "-")],
)
def test_large_numbers(value: float | None, written: str) -> None:
    assert q.short_count(value) == written


@pytest.mark.parametrize(
    ("value", "written"), [(0.4, "0.400"), (2.5, "2.50"), (99.96, "100"), (12_345.6, "12\u202f346")]
)
def test_rates_of_slow_networks_are_not_rounded_away(value: float, written: str) -> None:
    assert q.rate(value) == written


def test_intervals_stand_beside_their_value() -> None:
    assert q.score(0.5, 100) == "50.00 % [40.38, 59.62]"
    assert q.speedup(1.9, 1.85, 1.96) == "1.90× [1.85, 1.96]"
    assert q.difference(-0.003) == "−0.30 points"
    assert (
        q.percentile(Percentile(percent=99, value_ms=2.0, low_ms=1.9, high_ms=2.5, needs=662)) == "2.00 ms [1.90, 2.50]"
    )
    assert q.percentile(Percentile(percent=99, value_ms=None, needs=662)) == "n/a (needs 662 calls)"


def test_the_mean_of_graded_losses_has_the_normal_interval() -> None:
    """Losses 0, 0.5, 0.5, 1: the mean is 0.5, the deviation sqrt(1/6), the error sqrt(1/24) = 0.20412."""
    error = standard_error(np.array([0, 0.5, 0.5, 1]))
    assert error == pytest.approx(0.204124, abs=1e-6)
    assert q.ends(0.5, 4, error) == pytest.approx((0.09992, 0.90008), abs=1e-5)
    assert standard_error(np.array([0.0, 1, 1])) is None  # a proportion: Wilson's
