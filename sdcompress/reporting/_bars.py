"""Horizontal bars with a name at each line."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator

from sdcompress.reporting._svg import INK, SERIES, STEPS

_LEAST_NAMED = 0.12  # of the width: a name does not fit into less


def bars(
    axes: Axes, values: Sequence[float], label: str, format_: str, *, ticks: Sequence[float] | None = None
) -> None:
    """One bar for each line, with its value at the end; nothing where the value is 0. ``ticks``: of the scale."""
    axes.barh(range(len(values)), values, color=SERIES[0], alpha=0.75, height=0.62)
    for line, value in enumerate(values):
        if value:
            axes.text(value, line, f"\u00a0{value:{format_}}", va="center", color=INK, fontsize=10)
    axes.set_xlim(0, max(values) * 1.25 or 1)
    axes.xaxis.set_major_locator(FixedLocator(ticks) if ticks else MaxNLocator(4))
    axes.set_xlabel(label)


def stacked(axes: Axes, line: int, shares: Sequence[float], names: Sequence[str] = ()) -> None:
    """One line that is parted by shares, which sum to 1; those wide enough say theirs, below their name if given."""
    left = 0.0
    for k, share in enumerate(shares):
        axes.barh(line, share * 100, left=left, color=STEPS[k % len(STEPS)], height=0.62)
        if share >= _LEAST_NAMED:
            text = f"{names[k]}\n{share:.0%}" if names else f"{share:.0%}"
            axes.text(left + share * 50, line, text, ha="center", va="center", fontsize=9.5)
        left += share * 100
    axes.set_xlim(0, 100)


def key(figure: Figure, names: Sequence[str]) -> None:
    """Which colour of ``stacked`` is which, above the axes."""
    patches = [Patch(color=STEPS[k % len(STEPS)], label=name) for k, name in enumerate(names)]
    figure.legend(handles=patches, loc="outside upper center", ncols=min(len(names), 5))


def name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Name the lines, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
