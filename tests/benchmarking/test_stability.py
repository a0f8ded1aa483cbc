"""Each reason appears when it is due, and only then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdcompress.benchmarking.record import reasons

QUIET: dict[str, Any] = {"same_work": True, "threads": 1, "cores": 4, "quota": None, "busy_cores": 0.1}
STEADY = 1.0 + 0.01 * np.random.default_rng(0).random(1000)


def test_steady_times_are_stable() -> None:
    assert reasons(STEADY, **QUIET) == ()


@pytest.mark.parametrize(
    ("times", "settings", "reason"),
    [
        (STEADY[:10], {}, "10 calls, 11 are needed"),
        (np.where(np.arange(1000) % 4 == 0, 1.5, 1.0), {}, "times scatter by 19 %"),  # sd 0.2165, mean 1.125
        (np.where(np.arange(1000) % 50 == 0, 4.0, 1.0), {}, "2.0 % of the calls took more than three medians"),
        (STEADY * np.where(np.arange(1000) < 500, 1.0, 1.07), {}, "drifted by +7 %"),
        (STEADY * np.where(np.arange(1000) < 500, 1.0, 0.9), {"same_work": False}, "drifted by -10 %"),
        (STEADY, {"busy_cores": 3.9}, "other work kept 3.9 of 4 cores busy before the run, 1 threads wanted"),
        (STEADY, {"quota": 0.5}, "a control group allows 0.5 cores, 1 threads wanted"),
    ],
)
def test_each_reason(times: np.ndarray, settings: dict[str, Any], reason: str) -> None:
    texts = reasons(times, **QUIET | settings)
    assert any(reason in text for text in texts), texts


def test_times_that_must_scatter_are_not_blamed_for_it() -> None:
    mixed = np.random.default_rng(0).choice([1.0, 4.0], size=1000, p=[0.9, 0.1])
    assert reasons(mixed, **QUIET | {"same_work": False}) == ()
