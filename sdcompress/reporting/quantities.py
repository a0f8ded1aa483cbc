"""Format quantities with unit, significant digits and interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdcompress.schema.base import Interval
from sdcompress.schema.report import Percentile

__all__ = [
    "NOTHING",
    "capitalized",
    "count",
    "difference",
    "ends",
    "enumeration",
    "megabytes",
    "milliseconds",
    "paired",
    "paired_cell",
    "percentile",
    "rate",
    "score",
    "share",
    "short_count",
    "speedup",
    "threads",
    "three_digits",
    "wilson",
]

NOTHING = "-"
_Z95 = 1.959964


def score(value: float | None, samples: int | None = None, error: float | None = None) -> str:
    """Format a score in percent, with its 95 % interval if the number of samples is given.

    Args:
        value: the score.
        samples: N.
        error: standard error of the mean, where losses are not all 0 or 1; None: the score is a proportion.
    """
    if value is None:
        return NOTHING
    if samples is None:
        return f"{value:.2%}".replace("%", " %")
    low, high = ends(value, samples, error)
    return f"{value * 100:.2f} % [{low * 100:.2f}, {high * 100:.2f}]"


def ends(value: float, samples: int, error: float | None = None) -> tuple[float, float]:
    """Return the 95 % interval of a score: Wilson's of a proportion, the normal one of a mean with a standard error."""
    if error is None:
        return wilson(value, samples)
    return max(value - _Z95 * error, 0.0), min(value + _Z95 * error, 1.0)


def wilson(share_right: float, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927). It contains the proportion."""
    z2 = _Z95**2 / samples
    middle = (share_right + z2 / 2) / (1 + z2)
    half = _Z95 / (1 + z2) * math.sqrt(share_right * (1 - share_right) / samples + z2 / (4 * samples))
    # at 0 and 1 one end equals the proportion, up to rounding
    return max(min(middle - half, share_right), 0.0), min(max(middle + half, share_right), 1.0)


def difference(value: float) -> str:
    """Format a difference of two scores in percentage points, with its sign."""
    return f"{value * 100:+.2f}".replace("-", "−") + " points"


def paired(interval: Interval) -> str:
    """Format a paired difference of two scores with its 95 % interval, and say whether that contains 0.

    Report, explanation and terminal share this wording, so that their verdicts agree.
    """
    within = ", within sampling error" if interval.low <= 0 <= interval.high else ""
    ends = f"{interval.low * 100:+.2f} to {interval.high * 100:+.2f}".replace("-", "−")
    return f"{difference(interval.value)} (95 % interval {ends}{within})"


def paired_cell(interval: Interval | None) -> str:
    """Format a paired difference for a table cell, with the ends of its interval."""
    if interval is None:
        return NOTHING
    return f"{difference(interval.value)} [{interval.low * 100:+.2f}, {interval.high * 100:+.2f}]".replace("-", "−")


def milliseconds(value: float | None) -> str:
    """Format a time in ms with three significant digits."""
    return NOTHING if value is None else f"{three_digits(value)} ms"


def percentile(value: Percentile) -> str:
    """Format a percentile with its 99 % interval, or the number of calls that it needs."""
    if value.value_ms is None or value.low_ms is None or value.high_ms is None:
        return f"n/a (needs {value.needs} calls)"
    return f"{milliseconds(value.value_ms)} [{three_digits(value.low_ms)}, {three_digits(value.high_ms)}]"


def speedup(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Format a speed-up with its 95 % interval."""
    if value is None:
        return NOTHING
    return f"{value:.2f}×" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")


def share(value: float) -> str:
    """Format a share in percent."""
    return f"{value * 100:.1f} %"


def count(value: float) -> str:
    """Format a number as an integer with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\u202f")


def rate(value: float) -> str:
    """Format a number per second: three significant digits below 100, else an integer as ``count`` does."""
    return three_digits(value) if value < 100 else count(value)


def short_count(value: float | None) -> str:
    """Format a large number with three significant digits and k, M or G."""
    if value is None:
        return NOTHING
    rounded = float(f"{value:.2e}")  # 999,999 is 1.00 M, not 1000 k
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{three_digits(value / size)} {unit}"
    return f"{value:.0f}"


def megabytes(value: int) -> str:
    """Format bytes as MB (1e6)."""
    return f"{three_digits(value / 1e6)} MB"


def enumeration(names: Sequence[str]) -> str:
    """Join names with commas and a last "and"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def threads(count: int) -> str:
    """Format a number of threads."""
    return "one thread" if count == 1 else f"{count} threads"


def capitalized(text: str) -> str:
    """Return the text with a capital first letter; the other letters keep their case, unlike ``str.capitalize``."""
    return text[:1].upper() + text[1:]


def three_digits(value: float) -> str:
    """Format a number with three significant digits, but no fewer than those before the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    exponent = int(f"{value:.2e}".partition("e")[2])  # of the rounded number: 9.996 is 10.0
    return f"{value:.{max(0, 2 - exponent)}f}"
