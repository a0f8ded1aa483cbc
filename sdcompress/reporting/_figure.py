"""Drawing with matplotlib: SVG elements for a page, logarithmic axes, bars, and labels that do not overlap."""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

# placeholder colours: each becomes a CSS variable of the page, with a light and a dark value
INK, MUTED, GRID, PAPER = "#010203", "#010204", "#010205", "#010206"
SERIES = tuple(f"#0102{16 + i:02x}" for i in range(8))
STEPS = tuple(f"#0102{32 + i:02x}" for i in range(6))
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    **{colour: f"series{i}" for i, colour in enumerate(SERIES)},
    **{colour: f"step{i}" for i, colour in enumerate(STEPS)},
}

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.unicode_minus": False,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "figure.dpi": 72,
    "savefig.facecolor": "none",
}


def draw(name: str, alt: str, height: float, paint: Callable[[Figure], None], width: float = 460) -> str:
    """Paint a figure and return it as an ``<svg>`` element.

    Args:
        name: unique in the page; keeps the ids of several figures apart.
        alt: what the figure shows, for screen readers.
        height: px.
        paint: draws on the figure.
        width: px at which the font has its nominal size.
    """
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # measured only; the browser has the glyph
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _embed(buffer.getvalue(), name, alt)


def _embed(svg: str, name: str, alt: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href=", "href=")
    svg = re.sub(r"(\bid=\"|href=\"#|url\(#)", rf"\g<1>{name}-", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg {box.group(0) if box else ""} role="img" aria-label="{html.escape(alt)}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)
    svg = re.sub(r"font: ([\d.]+)px '[^']*'", r"font-size: \1px", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.strip()


_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0))
_MIN_TICKS, _MAX_TICKS = 3, 7


def log_ticks(low: float, high: float) -> list[float]:
    """Return three to seven round numbers between the ends of a logarithmic axis.

    Args:
        low: above 0.
        high: above ``low``.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _STEPS:
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) >= _MIN_TICKS:
            return ticks[:: math.ceil(len(ticks) / _MAX_TICKS)]
    # less than a decade: ticks as on a linear axis
    for bins in range(4, 12):
        ticks = [
            float(tick) for tick in MaxNLocator(bins, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high
        ]
        if len(ticks) >= _MIN_TICKS:
            break
    return ticks


def label_log_axis(axis: Axis) -> None:
    """Set the ticks of a logarithmic axis with final limits; every tick has a label."""
    axis.set_major_locator(FixedLocator(log_ticks(*sorted(axis.get_view_interval()))))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


_MIN_NAMED_SHARE = 0.12  # share of the width below which a name does not fit


def bars(
    axes: Axes, values: Sequence[float], label: str, format_: str, *, ticks: Sequence[float] | None = None
) -> None:
    """Draw one bar for each line with its value at the end, none for 0. ``ticks`` are those of the scale."""
    axes.barh(range(len(values)), values, color=SERIES[0], alpha=0.75, height=0.62)
    for line, value in enumerate(values):
        if value:
            axes.text(value, line, f"\u00a0{value:{format_}}", va="center", color=INK, fontsize=10)
    axes.set_xlim(0, max(values) * 1.25 or 1)
    axes.xaxis.set_major_locator(FixedLocator(ticks) if ticks else MaxNLocator(4))
    axes.set_xlabel(label)


def stacked(axes: Axes, line: int, shares: Sequence[float], names: Sequence[str] = ()) -> None:
    """Draw one stacked bar of shares that sum to 1. Wide parts show their share, below their name if given."""
    start = 0.0
    for k, share in enumerate(shares):
        axes.barh(line, share * 100, left=start, color=STEPS[k % len(STEPS)], height=0.62)
        if share >= _MIN_NAMED_SHARE:
            text = f"{names[k]}\n{share:.0%}" if names else f"{share:.0%}"
            axes.text(start + share * 50, line, text, ha="center", va="center", fontsize=9.5)
        start += share * 100
    axes.set_xlim(0, 100)


def key(figure: Figure, names: Sequence[str]) -> None:
    """Add a legend for the colours of ``stacked`` above the axes."""
    patches = [Patch(color=STEPS[k % len(STEPS)], label=name) for k, name in enumerate(names)]
    figure.legend(handles=patches, loc="outside upper center", ncols=min(len(names), 5))


_LONGEST_NAME = 32  # characters; longer ones would leave less than half of the width to the axes
_LONGEST_LABEL = 48  # of a point, within the axes


def shortened(name: str, longest: int = _LONGEST_NAME) -> str:
    """Return a name of at most so many characters; of a longer one both ends, at either of which names may differ."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[len(name) - (longest - half - 1) :]}"


def name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Label the lines on the y axis, the first at the top; long names are shortened."""
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


_DIRECTIONS = (0, 180, 90, 270, 45, 315, 135, 225)
_DISTANCES = (10.0, 20.0, 32.0, 46.0, 62.0)


@dataclass(frozen=True)
class Label:
    """A label, its point in data coordinates, and its colour."""

    text: str
    x: float
    y: float
    colour: str


def beside_points(axes: Axes, labels: Sequence[Label], keep_free: Sequence[tuple[float, float]] = ()) -> None:
    """Write each label, shortened, at the nearest free position around its point, with a thin line if that is far.

    Args:
        axes: with their final limits.
        labels: most important first.
        keep_free: further points to keep free, data coordinates.
    """
    renderer = FigureCanvasAgg(axes.figure.figure).get_renderer()
    axes.figure.figure.draw_without_rendering()
    frame = axes.get_window_extent(renderer)
    anchors = [
        tuple(map(float, axes.transData.transform((x, y))))
        for x, y in [*((label.x, label.y) for label in labels), *keep_free]
    ]
    occupied = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in anchors]
    for label, anchor in zip(labels, anchors, strict=False):
        text = axes.annotate(
            shortened(label.text, _LONGEST_LABEL),
            (label.x, label.y),
            textcoords="offset points",
            xytext=(0, 0),
            color=label.colour,
            fontsize=10.5,
        )
        text.set_in_layout(False)  # otherwise the layout would move the axes under placed labels
        size = text.get_window_extent(renderer)
        box, distance = _free_place(anchor, size.width + 4, size.height, occupied, frame)
        text.set_position((box.x0 + 2 - anchor[0], box.y0 + 2 - anchor[1]))
        if distance > _DISTANCES[1]:
            nearest = (np.clip(anchor[0], box.x0, box.x1), np.clip(anchor[1], box.y0, box.y1))
            end = axes.transData.inverted().transform(nearest)
            axes.plot([label.x, end[0]], [label.y, end[1]], color=MUTED, linewidth=0.6, scalex=False, scaley=False)
        occupied.append(box)


def _free_place(
    anchor: Sequence[float], width: float, height: float, occupied: Sequence[Bbox], frame: Bbox
) -> tuple[Bbox, float]:
    """Return the first box near an anchor that is inside the frame and free, else the one that covers least."""
    best: tuple[float, Bbox, float] | None = None
    for distance in _DISTANCES:
        for angle in _DIRECTIONS:
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x = anchor[0] + dx * (distance + width / 2) - width / 2
            y = anchor[1] + dy * (distance + height / 2) - height / 2
            box = Bbox.from_bounds(x, y, width, height)
            covered = sum(_overlap(box, occupied_box) for occupied_box in occupied)
            outside = width * height - _overlap(box, frame)
            cost = covered + 3 * outside
            if cost < 1e-6:
                return box, distance
            if best is None or cost < best[0]:
                best = (cost, box, distance)
    assert best is not None
    return best[1], best[2]


def _overlap(a: Bbox, b: Bbox) -> float:
    wide = min(a.x1, b.x1) - max(a.x0, b.x0)
    high = min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(max(wide, 0.0) * max(high, 0.0))


def beside_line_ends(axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label, shortened, right of the end of its line, moved vertically so that labels do not touch.

    Args:
        axes: with their final limits; the labels stand right of the frame.
        labels: x is ignored.
    """
    axes.figure.figure.draw_without_rendering()
    rising = sorted(labels, key=lambda label: label.y)
    wanted_heights = [float(axes.transData.transform((0, label.y))[1]) for label in rising]
    heights = _spread(wanted_heights, gap=13.0)
    for label, height, height_wanted in zip(rising, heights, wanted_heights, strict=True):
        axes.annotate(
            shortened(label.text),
            (1.0, label.y),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            xytext=(5, height - height_wanted),
            color=label.colour,
            fontsize=10.5,
            va="center",
            annotation_clip=False,
        )


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Return heights in the same rising order, at least ``gap`` apart and near the wanted ones."""
    groups: list[list[float]] = []
    for height in wanted:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1], gap) < _bottom(groups[-2], gap) + gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_bottom(group, gap) + gap * i for group in groups for i in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2
