"""A graph whose early exits save nothing is refused, with the figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from sdcompress.errors import VerificationError
from sdcompress.schema.graphs import PathTime
from sdcompress.verification import latency_check
from sdcompress.verification.latency_check import TimedGraphs, check_faster, time_paths

EXITS = ("exit1", "exit2", "final")


def test_the_times_are_those_of_images_that_take_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(latency_check, "perf_counter_ns", lambda: now[0])

    def takes(ms: Callable[[float], float]) -> Callable[[np.ndarray], None]:
        """A call whose time depends on the image, which is the number of its exit."""

        def call(inputs: np.ndarray) -> None:
            now[0] += int(1e6 * ms(float(inputs[0, 0, 0, 0])))

        return call

    left = np.array([0, 2, 0, 2, 0])
    inputs = left.astype(np.float32)[:, None, None, None]
    graphs = TimedGraphs(takes(lambda exit_: 0.5 + exit_), takes(lambda _: 2.5), takes(lambda _: 2.0))
    first, second, last = time_paths(graphs, inputs, left, EXITS, seconds=0.4)
    # 0.4 s hold 40 rounds of two calls each of 0.5 + 2.5 + 2 ms, three of which warm up
    expected = {
        "ms": 0.5,
        "full_depth_ms": 2.5,
        "no_exits_ms": 2.0,
        "rounds": 37,
        "wins_vs_full_depth": 37,
        "wins_vs_no_exits": 37,
    }
    assert first == PathTime(exit="exit1", samples=3, **expected)
    assert second == PathTime(exit="exit2", samples=0)
    assert (last.ms, last.rounds, last.wins_vs_full_depth) == (2.5, 30, 0)
    check_faster((first, second, last))


def path(name: str = "exit1", faster: int = 30, **fields: Any) -> PathTime:
    given = {
        "samples": 4,
        "rounds": 30,
        "ms": 1.0,
        "full_depth_ms": 2.0,
        "no_exits_ms": 1.9,
        "wins_vs_no_exits": 30,
        **fields,
    }
    return PathTime(exit=name, wins_vs_full_depth=faster, **given)


def test_an_early_path_that_is_not_faster_is_refused_with_the_figures() -> None:
    slow = path("exit2", 17, ms=1.999)
    with pytest.raises(
        VerificationError, match=r"exit2 in 1\.999 ms, .* 2\.000 ms \(faster in 17 of 30 .* 1\.900 ms \(30"
    ):
        check_faster((path(), slow, path("final", 12)))


def test_the_first_exit_must_beat_the_network_without_exits_and_a_deeper_one_need_not() -> None:
    with pytest.raises(VerificationError, match="exit1 in"):
        check_faster((path(wins_vs_no_exits=20), path("final", 0)))
    check_faster((PathTime(exit="exit0", samples=0), path(), path("exit2", wins_vs_no_exits=0), path("final", 0)))


@pytest.mark.parametrize("faster", range(15, 31))
def test_noise_is_not_a_gain(faster: int) -> None:
    """The margin is that of a one-sided sign test at 1 in 1000."""
    times = (path(faster=faster), path("final", 0))
    if binomtest(faster, 30, alternative="greater").pvalue <= 1e-3:
        check_faster(times)
    else:
        with pytest.raises(VerificationError):
            check_faster(times)


def test_without_early_exits_nothing_is_faster() -> None:
    with pytest.raises(VerificationError, match="None of the samples exits early"):
        check_faster((PathTime(exit="exit1", samples=0), path("final", 0)))
