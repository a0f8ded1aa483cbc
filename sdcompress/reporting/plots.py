"""The plots of a report, as SVG elements. Each shows what a table also says in figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdcompress.reporting import quantities as q
from sdcompress.reporting._axes import label_log_axis
from sdcompress.reporting._bars import bars, name_lines, stacked
from sdcompress.reporting._curves import training
from sdcompress.reporting._labels import Label, beside_points
from sdcompress.reporting._svg import MUTED, PAPER, SERIES, draw
from sdcompress.reporting.page import Plot
from sdcompress.reporting.rows import accuracy_of, evaluation_of, own_exits, record_of, same, shown
from sdcompress.schema.report import BenchRecord, Evaluation, Report, ReportRow

__all__ = ["plots"]

_Place = tuple[float, float]

_PERCENT = (0, 25, 50, 75, 100)
_BAR = 30


def plots(report: Report) -> list[Plot]:
    """Every plot for which the report has data."""
    drawn = [_trade(report), _waiting(report), _shares(report)]
    for evaluation in shown(report):
        if len(own_exits(evaluation)) > 1:
            drawn.append(_exits(report, evaluation, len(drawn)))
    found = [plot for plot in drawn if plot is not None]
    for name, lines in report.training.items():
        found += [Plot(*parts) for parts in training(name, lines, f"train{len(found)}")]
    return found


@dataclass(frozen=True)
class _Point:
    row: ReportRow
    evaluation: Evaluation
    record: BenchRecord
    accuracy: float
    colour: str


def _points(report: Report) -> list[_Point]:
    tested = any(row.test_accuracy is not None for row in report.rows)
    points = []
    for index, row in enumerate(report.rows):
        evaluation, record = evaluation_of(report, row, "test" if tested else "validation"), record_of(report, row)
        accuracy = accuracy_of(evaluation)
        if evaluation is not None and record is not None and accuracy is not None:
            points.append(_Point(row, evaluation, record, accuracy, SERIES[index % len(SERIES)]))
    return points


def _trade(report: Report) -> Plot | None:
    points = _points(report)
    if not points:
        return None
    split = points[0].evaluation.split

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xlabel("run of one image, ms (mean)")
        axes.set_ylabel(f"{split} accuracy, %")
        curve = [place for point in points for place in _exit_curve(axes, point)]
        bars = [place for point in points for place in _point(axes, point)]
        front = _front(axes, [point for point in points if point.record.stable])
        axes.margins(x=0.12, y=0.12)
        axes.set_xlim(left=0)
        labels = [Label(p.row.name, p.record.latency.mean_ms, p.accuracy * 100, p.colour) for p in points]
        beside_points(axes, labels, curve + bars + front)

    caption = (
        f"Up and left is better. Bars: 95 % interval of the {split} accuracy. Small dots on a thin line:"
        " every image forced to leave at that exit. Dashed: nothing measured is both faster and more accurate."
        " Hollow: the machine was not steady. Times are means, without the preparation of the input."
    )
    return Plot(
        "Accuracy against latency", draw("trade", "Accuracy against latency of each artifact", 400, paint), caption
    )


def _point(axes: Axes, point: _Point) -> list[_Place]:
    """A marker with its error bar; returns the places to keep free of names, as the next two do."""
    low, high = q.wilson(point.accuracy, point.evaluation.samples)
    axes.errorbar(
        point.record.latency.mean_ms,
        point.accuracy * 100,
        yerr=[[100 * (point.accuracy - low)], [100 * (high - point.accuracy)]],
        fmt="o",
        color=point.colour,
        markerfacecolor=point.colour if point.record.stable else PAPER,
        markersize=8,
        elinewidth=1.2,
        capsize=3,
        zorder=3,
    )
    return _along([(point.record.latency.mean_ms, 100 * end) for end in (low, high)])


def _exit_curve(axes: Axes, point: _Point) -> list[_Place]:
    """The forced exits of one artifact, joined; none where their means are not known: the axis is one of means."""
    accuracies = {exit_.name: exit_.accuracy * 100 for exit_ in own_exits(point.evaluation)}
    places = [
        (timing.forced_mean_ms, accuracies[timing.name])
        for timing in point.record.exits
        if timing.name in accuracies and timing.forced_mean_ms is not None
    ]
    if len(places) < 2:
        return []
    x, y = zip(*places, strict=True)
    axes.plot(x, y, color=point.colour, linewidth=1, marker="o", markersize=4, alpha=0.65)
    return _along(places)


def _front(axes: Axes, points: list[_Point]) -> list[_Place]:
    """A step line through the points that no other beats in both latency and accuracy."""
    best, front = -1.0, []
    for point in sorted(points, key=lambda p: (p.record.latency.mean_ms, -p.accuracy)):
        if point.accuracy > best:
            best = point.accuracy
            front.append((point.record.latency.mean_ms, point.accuracy * 100))
    if len(front) < 2:
        return []
    x, y = zip(*front, strict=True)
    axes.step(x, y, where="post", color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    corners = [(x[i + 1], y[i]) for i in range(len(front) - 1)]
    return _along([place for pair in zip(front, corners, strict=False) for place in pair] + front[-1:])


def _along(places: list[_Place]) -> list[_Place]:
    """Places close together on the line through ``places``."""
    x, y = zip(*places, strict=True)
    spots, known = np.linspace(0, len(places) - 1, 25 * len(places)), range(len(places))
    return list(zip(np.interp(spots, known, x).tolist(), np.interp(spots, known, y).tolist(), strict=True))


def _waiting(report: Report) -> Plot | None:
    """The distribution of latency, slow calls and all."""
    found = [(index, row, record_of(report, row)) for index, row in enumerate(report.rows)]
    records = [(index, row, record.raw_ms) for index, row, record in found if record is not None and record.raw_ms]
    if not records:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for index, row, raw in records:
            levels = np.linspace(0, 100, 201)
            times = np.percentile(np.asarray(raw), levels, method="inverted_cdf")
            again, colour = divmod(index, len(SERIES))
            style = (0, (4, 2)) if again else "-"  # of two rows of a colour
            axes.step(times, levels, where="post", color=SERIES[colour], linewidth=1.6, linestyle=style, label=row.name)
        axes.set_xscale("log")
        label_log_axis(axes.xaxis)
        axes.set_xlabel("run of one image, ms (logarithmic)")
        axes.set_ylabel("calls at most this slow, %")
        axes.legend(loc="lower right", fontsize="small" if len(records) > len(SERIES) else None)

    caption = "Every measured call. Steps are exits; a long flat end at the top is a slow tail."
    return Plot("Distribution of latency", draw("waiting", "Share of calls at most this slow", 400, paint), caption)


def _shares(report: Report) -> Plot | None:
    kept = [(f"{e.name}, {e.split}", e) for e in shown(report) if e.policy is not None]
    if not kept:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for line, (_, evaluation) in enumerate(kept):
            names = [exit_.name for exit_ in own_exits(evaluation)]
            stacked(axes, line, evaluation.policy.shares if evaluation.policy else (), names)
        name_lines(axes, [name for name, _ in kept])
        axes.set_xlabel("images that left there, %")

    height = 70 + 44 * len(kept)
    return Plot(
        "Where images leave",
        draw("shares", "Share of images that left at each exit", height, paint),
        "Shallow exits on the left. Shares below 12 % are not labelled; the table below has all.",
    )


def _exits(report: Report, evaluation: Evaluation, number: int) -> Plot:
    row = next((row for row in report.rows if same(row, evaluation.name, evaluation.digest)), None)
    record = record_of(report, row) if row else None
    timings = record.exits if record else ()
    means = {timing.name: timing.forced_mean_ms for timing in timings if timing.forced_mean_ms is not None}
    forced = means or {timing.name: timing.forced_p50_ms for timing in timings}
    what = "mean" if means else "p50"

    def paint(figure: Figure) -> None:
        # apart, or the last number of one scale touches the first of the next
        panels = figure.subplots(1, 2 if forced else 1, squeeze=False, gridspec_kw={"wspace": 0.1})[0]
        names = [exit_.name for exit_ in evaluation.exits]
        accuracy = [exit_.accuracy * 100 for exit_ in evaluation.exits]
        bars(panels[0], accuracy, "accuracy of all images, %", ".1f", ticks=_PERCENT)  # nothing is above 100 %
        name_lines(panels[0], names)
        if forced:
            bars(panels[1], [forced.get(name, 0.0) for name in names], f"{what} when forced there, ms", ".3g")
            name_lines(panels[1], [""] * len(names))

    height = 70 + _BAR * len(evaluation.exits)
    title = f"Exits of {evaluation.name}, {evaluation.split} split"
    return Plot(
        title, draw(f"exits{number}", title, height, paint), "What each exit knows and what it costs by itself."
    )
