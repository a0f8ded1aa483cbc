"""Axes whose ticks always have labels."""

from __future__ import annotations

import math

from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

__all__ = ["label_log_axis", "log_ticks"]

_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0))
_LEAST, _MOST = 3, 7


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends of a logarithmic axis, three to seven of them wherever the ends lie.

    Args:
        low: above 0.
        high: above ``low``.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _STEPS:
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) >= _LEAST:
            return ticks[:: math.ceil(len(ticks) / _MOST)]
    # less than a decade: as on a plain axis
    for bins in range(4, 12):
        ticks = [
            float(tick) for tick in MaxNLocator(bins, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high
        ]
        if len(ticks) >= _LEAST:
            break
    return ticks


def label_log_axis(axis: Axis) -> None:
    """Put labelled ticks on a logarithmic axis whose limits are final, and none without a label."""
    axis.set_major_locator(FixedLocator(log_ticks(*sorted(axis.get_view_interval()))))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
