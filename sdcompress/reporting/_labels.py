"""Names beside their points, so that no reader has to look up a colour, and no two names overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from sdcompress.reporting._svg import MUTED

_DIRECTIONS = (0, 180, 90, 270, 45, 315, 135, 225)
_DISTANCES = (10.0, 20.0, 32.0, 46.0, 62.0)


@dataclass(frozen=True)
class Label:
    """A name, the point it belongs to (data coordinates) and its colour."""

    text: str
    x: float
    y: float
    colour: str


def beside_points(axes: Axes, labels: Sequence[Label], others: Sequence[tuple[float, float]] = ()) -> None:
    """Write each label at the nearest free place around its point, with a thin line where that is far.

    Args:
        axes: with their final limits.
        labels: most important first.
        others: further places to keep free, data coordinates.
    """
    renderer = FigureCanvasAgg(axes.figure.figure).get_renderer()
    axes.figure.figure.draw_without_rendering()
    frame = axes.get_window_extent(renderer)
    places = [
        tuple(map(float, axes.transData.transform((x, y))))
        for x, y in [*((label.x, label.y) for label in labels), *others]
    ]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in places]
    for label, place in zip(labels, places, strict=False):
        text = axes.annotate(
            label.text, (label.x, label.y), textcoords="offset points", xytext=(0, 0), color=label.colour, fontsize=10.5
        )
        text.set_in_layout(False)  # else the layout would move the axes under the names that are placed
        size = text.get_window_extent(renderer)
        box, distance = _free_place(place, size.width + 4, size.height, taken, frame)
        text.set_position((box.x0 + 2 - place[0], box.y0 + 2 - place[1]))
        if distance > _DISTANCES[1]:
            nearest = (np.clip(place[0], box.x0, box.x1), np.clip(place[1], box.y0, box.y1))
            end = axes.transData.inverted().transform(nearest)
            axes.plot([label.x, end[0]], [label.y, end[1]], color=MUTED, linewidth=0.6, scalex=False, scaley=False)
        taken.append(box)


def _free_place(
    place: Sequence[float], width: float, height: float, taken: Sequence[Bbox], frame: Bbox
) -> tuple[Bbox, float]:
    """The first box around a place that lies in the frame and on nothing; else the one that covers least."""
    best: tuple[float, Bbox, float] | None = None
    for distance in _DISTANCES:
        for angle in _DIRECTIONS:
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x = place[0] + dx * (distance + width / 2) - width / 2
            y = place[1] + dy * (distance + height / 2) - height / 2
            box = Bbox.from_bounds(x, y, width, height)
            covered = sum(_overlap(box, other) for other in taken)
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
    """Write each label to the right of its line's end, pushed apart vertically where two would touch.

    Args:
        axes: with their final limits; the labels stand right of the frame.
        labels: x is ignored.
    """
    axes.figure.figure.draw_without_rendering()
    order = sorted(labels, key=lambda label: label.y)
    wanted = [float(axes.transData.transform((0, label.y))[1]) for label in order]
    heights = _spread(wanted, gap=13.0)
    for label, height, own in zip(order, heights, wanted, strict=True):
        axes.annotate(
            label.text,
            (1.0, label.y),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            xytext=(5, height - own),
            color=label.colour,
            fontsize=10.5,
            va="center",
            annotation_clip=False,
        )


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Heights in the same (rising) order, at least ``gap`` apart, as near to the wanted ones as groups allow."""
    groups: list[list[float]] = []
    for height in wanted:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1], gap) < _bottom(groups[-2], gap) + gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_bottom(group, gap) + gap * i for group in groups for i in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2
