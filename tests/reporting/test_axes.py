"""Logarithmic axes have labelled ticks wherever their ends lie."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from sdcompress.reporting._figure import label_log_axis, log_ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.5, 20.0, [1.0, 3.0, 10.0]),
        (0.9, 11.0, [1.0, 3.0, 10.0]),
        (0.21, 0.2601, [0.22, 0.24, 0.26]),
        (1e-3, 1e3, [1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0]),
    ],
)
def test_ticks_by_hand(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_there_are_three_to_seven_ticks_between_any_ends() -> None:
    rng = np.random.default_rng(0)
    for low, width in zip(10 ** rng.uniform(-4, 4, 300), 10 ** rng.uniform(0.001, 12, 300), strict=True):
        ticks = log_ticks(low, low * width)
        assert 3 <= len(ticks) <= 7
        assert all(low <= tick <= low * width for tick in ticks)
        assert ticks == sorted(set(ticks))


@pytest.mark.parametrize("times", [[0.31, 0.33, 0.36], [0.02, 9.0], [1.0, 1.0]])
def test_every_tick_has_its_label(times: list[float]) -> None:
    axes = Figure().subplots()
    axes.step(times, range(len(times)))
    axes.set_xscale("log")
    label_log_axis(axes.xaxis)
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert len(labels) >= 3
    assert all(labels)
    assert len(set(labels)) == len(labels)
    assert len(axes.xaxis.get_minorticklocs()) == 0
