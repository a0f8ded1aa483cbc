"""How a quantity is written: its unit beside it, as many digits as mean something, and its interval."""

from __future__ import annotations

import math

from sdcompress.schema.base import Interval
from sdcompress.schema.report import Percentile

__all__ = [
    "NOTHING",
    "accuracy",
    "count",
    "difference",
    "megabytes",
    "milliseconds",
    "paired",
    "paired_cell",
    "percentile",
    "share",
    "short_count",
    "speedup",
    "wilson",
]

NOTHING = "-"
_Z95 = 1.959964


def accuracy(value: float | None, samples: int | None = None) -> str:
    """An accuracy in percent, with its 95 % interval where the number of samples is known."""
    if value is None:
        return NOTHING
    if samples is None:
        return f"{value:.2%}".replace("%", " %")
    low, high = wilson(value, samples)
    return f"{value * 100:.2f} % [{low * 100:.2f}, {high * 100:.2f}]"


def wilson(share_right: float, samples: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927), which holds the proportion itself."""
    z2 = _Z95**2 / samples
    middle = (share_right + z2 / 2) / (1 + z2)
    half = _Z95 / (1 + z2) * math.sqrt(share_right * (1 - share_right) / samples + z2 / (4 * samples))
    # at 0 and at 1 an end is the proportion, which rounding may miss by 1e-16 on the wrong side
    return max(min(middle - half, share_right), 0.0), min(max(middle + half, share_right), 1.0)


def difference(value: float) -> str:
    """A difference of two accuracies, in percentage points with its sign."""
    return f"{value * 100:+.2f}".replace("-", "−") + " points"


def paired(found: Interval) -> str:
    """A difference of two accuracies on the same images, with its paired 95 % interval and whether that holds 0.

    The one wording for report, explanation and terminal: who reads two of them must not find two verdicts.
    """
    within = ", within sampling error" if found.low <= 0 <= found.high else ""
    ends = f"{found.low * 100:+.2f} to {found.high * 100:+.2f}".replace("-", "−")
    return f"{difference(found.value)} (95 % interval {ends}{within})"


def paired_cell(found: Interval | None) -> str:
    """The same for a table: the difference and the ends of its interval."""
    if found is None:
        return NOTHING
    return f"{difference(found.value)} [{found.low * 100:+.2f}, {found.high * 100:+.2f}]".replace("-", "−")


def milliseconds(value: float | None) -> str:
    """A time in ms with three significant digits."""
    return NOTHING if value is None else f"{_three_digits(value)} ms"


def percentile(found: Percentile) -> str:
    """A percentile with its 99 % interval, or how many samples it needs."""
    if found.value_ms is None or found.low_ms is None or found.high_ms is None:
        return f"n/a (needs {found.needs} calls)"
    return f"{milliseconds(found.value_ms)} [{_three_digits(found.low_ms)}, {_three_digits(found.high_ms)}]"


def speedup(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """How many times as fast, with its 95 % interval."""
    if value is None:
        return NOTHING
    return f"{value:.2f}×" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")


def share(value: float) -> str:
    """A share in percent."""
    return f"{value * 100:.1f} %"


def count(value: float) -> str:
    """A whole number with thin groups of three."""
    return f"{round(value):,}".replace(",", "\u202f")


def short_count(value: float | None) -> str:
    """A large number with three significant digits and k, M or G."""
    if value is None:
        return NOTHING
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{value:.0f}"


def megabytes(value: int) -> str:
    """Bytes as MB (1e6)."""
    return f"{_three_digits(value / 1e6)} MB"


def _three_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
