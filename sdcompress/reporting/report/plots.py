"""The plots of a report, as SVG elements. A table gives the figures of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sdcompress.reporting import quantities as q
from sdcompress.reporting._figure import (
    MUTED,
    PAPER,
    SERIES,
    Label,
    bars,
    beside_line_ends,
    beside_points,
    draw,
    label_log_axis,
    name_lines,
    shortened,
    stacked,
)
from sdcompress.reporting.page import Plot
from sdcompress.reporting.report.rows import (
    error_of,
    evaluation_of,
    is_same_artifact,
    own_exits,
    record_of,
    score_of,
    shown_evaluations,
    shown_split,
)
from sdcompress.schema.report import BenchRecord, Evaluation, Report, ReportRow

__all__ = ["plots"]

_Position = tuple[float, float]

_PERCENT = (0, 25, 50, 75, 100)
_BAR = 30
_MAX_POINTS = 300


def plots(report: Report) -> list[Plot]:
    """Return every plot for which the report has data."""
    drawn = [_trade(report), _latency_distribution(report), _shares(report)]
    for evaluation in shown_evaluations(report):
        if len(own_exits(evaluation)) > 1:
            drawn.append(_exits(report, evaluation, len(drawn)))
    plots_ = [plot for plot in drawn if plot is not None]
    for name, lines in report.training.items():
        plots_ += _training_curves(name, lines, f"train{len(plots_)}", report.metric_name)
    return plots_


@dataclass(frozen=True)
class _Point:
    row: ReportRow
    evaluation: Evaluation
    record: BenchRecord
    metric: float
    colour: str


def _points(report: Report) -> list[_Point]:
    split, points = shown_split(report), []
    for index, row in enumerate(report.rows):
        evaluation, record = evaluation_of(report, row, split), record_of(report, row)
        score = score_of(evaluation)
        if evaluation is not None and record is not None and score is not None:
            points.append(_Point(row, evaluation, record, score, SERIES[index % len(SERIES)]))
    return points


def _trade(report: Report) -> Plot | None:
    points = _points(report)
    if not points:
        return None
    split, metric = points[0].evaluation.split, report.metric_name

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xlabel("run of one sample, ms (mean)")
        axes.set_ylabel(f"{split} {metric}, %")
        curve = [position for point in points for position in _exit_curve(axes, point)]
        bars = [position for point in points for position in _point(axes, point)]
        front = _pareto_front(axes, [point for point in points if point.record.stable])
        axes.margins(x=0.12, y=0.12)
        axes.set_xlim(left=0)
        labels = [Label(p.row.name, p.record.latency.mean_ms, p.metric * 100, p.colour) for p in points]
        beside_points(axes, labels, curve + bars + front)

    caption = (
        f"Up and left is better. Bars: 95 % interval of the {split} {metric}. Small dots on a thin line:"
        " every sample forced to that exit. Dashed: no artifact is both faster and better."
        " Hollow: the machine was not steady. Times are means, without the preparation of the input."
    )
    title = f"{q.capitalized(metric)} against latency"
    return Plot(title, draw("trade", f"{title} of each artifact", 400, paint), caption)


def _point(axes: Axes, point: _Point) -> list[_Position]:
    """Draw a marker with its error bar; returns the points to keep free of labels."""
    low, high = q.ends(point.metric, point.evaluation.samples, error_of(point.evaluation))
    axes.errorbar(
        point.record.latency.mean_ms,
        point.metric * 100,
        yerr=[[100 * (point.metric - low)], [100 * (high - point.metric)]],
        fmt="o",
        color=point.colour,
        markerfacecolor=point.colour if point.record.stable else PAPER,
        markersize=8,
        elinewidth=1.2,
        capsize=3,
        zorder=3,
    )
    return _points_between([(point.record.latency.mean_ms, 100 * end) for end in (low, high)])


def _exit_curve(axes: Axes, point: _Point) -> list[_Position]:
    """Draw the forced exits of one artifact as a line, if their means are known; returns the points to keep free."""
    scores = {exit_.name: exit_.metric * 100 for exit_ in own_exits(point.evaluation)}
    positions = [
        (timing.forced_mean_ms, scores[timing.name])
        for timing in point.record.exits
        if timing.name in scores and timing.forced_mean_ms is not None
    ]
    if len(positions) < 2:
        return []
    x, y = zip(*positions, strict=True)
    axes.plot(x, y, color=point.colour, linewidth=1, marker="o", markersize=4, alpha=0.65)
    return _points_between(positions)


def _pareto_front(axes: Axes, points: list[_Point]) -> list[_Position]:
    """Draw the Pareto front of latency and score as a step line; returns the points to keep free."""
    best, front = -1.0, []
    for point in sorted(points, key=lambda p: (p.record.latency.mean_ms, -p.metric)):
        if point.metric > best:
            best = point.metric
            front.append((point.record.latency.mean_ms, point.metric * 100))
    if len(front) < 2:
        return []
    x, y = zip(*front, strict=True)
    axes.step(x, y, where="post", color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    corners = [(x[i + 1], y[i]) for i in range(len(front) - 1)]
    return _points_between([position for pair in zip(front, corners, strict=False) for position in pair] + front[-1:])


def _points_between(positions: list[_Position]) -> list[_Position]:
    """Return closely spaced points on the line through ``positions``."""
    x, y = zip(*positions, strict=True)
    steps, indices = np.linspace(0, len(positions) - 1, 25 * len(positions)), range(len(positions))
    return list(zip(np.interp(steps, indices, x).tolist(), np.interp(steps, indices, y).tolist(), strict=True))


def _latency_distribution(report: Report) -> Plot | None:
    """Plot the distribution of latency over all calls."""
    row_records = [(index, row, record_of(report, row)) for index, row in enumerate(report.rows)]
    records = [
        (index, row, record.raw_ms) for index, row, record in row_records if record is not None and record.raw_ms
    ]
    if not records:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for index, row, raw in records:
            levels = np.linspace(0, 100, 201)
            times = np.percentile(np.asarray(raw), levels, method="inverted_cdf")
            again, colour = divmod(index, len(SERIES))
            style = (0, (4, 2)) if again else "-"  # tells two rows of one colour apart
            name = shortened(row.name)
            axes.step(times, levels, where="post", color=SERIES[colour], linewidth=1.6, linestyle=style, label=name)
        axes.set_xscale("log")
        label_log_axis(axes.xaxis)
        axes.set_xlabel("run of one sample, ms (logarithmic)")
        axes.set_ylabel("calls at most this slow, %")
        axes.legend(loc="lower right", fontsize="small" if len(records) > len(SERIES) else None)

    caption = "Every measured call. Steps are exits; a long flat end at the top is a slow tail."
    return Plot("Distribution of latency", draw("waiting", "Share of calls at most this slow", 400, paint), caption)


def _shares(report: Report) -> Plot | None:
    evaluations = [(f"{e.name}, {e.split}", e) for e in shown_evaluations(report) if e.policy is not None]
    if not evaluations:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for line, (_, evaluation) in enumerate(evaluations):
            names = [exit_.name for exit_ in own_exits(evaluation)]
            stacked(axes, line, evaluation.policy.shares if evaluation.policy else (), names)
        name_lines(axes, [name for name, _ in evaluations])
        axes.set_xlabel("samples that exit there, %")

    height = 70 + 44 * len(evaluations)
    return Plot(
        "Where samples exit",
        draw("shares", "Share of samples at each exit", height, paint),
        "Shallow exits on the left. Shares below 12 % are not labelled; the table below has all.",
    )


def _exits(report: Report, evaluation: Evaluation, number: int) -> Plot:
    row = next((row for row in report.rows if is_same_artifact(row, evaluation.name, evaluation.digest)), None)
    record = record_of(report, row) if row else None
    timings = record.exits if record else ()
    means = {timing.name: timing.forced_mean_ms for timing in timings if timing.forced_mean_ms is not None}
    forced = means or {timing.name: timing.forced_p50_ms for timing in timings}
    statistic = "mean" if means else "p50"

    def paint(figure: Figure) -> None:
        # spaced, so that numbers of adjacent scales do not touch
        panels = figure.subplots(1, 2 if forced else 1, squeeze=False, gridspec_kw={"wspace": 0.1})[0]
        names = [exit_.name for exit_ in evaluation.exits]
        scores = [exit_.metric * 100 for exit_ in evaluation.exits]
        # nothing is above 100 %
        bars(panels[0], scores, f"{report.metric_name} of all samples, %", ".1f", ticks=_PERCENT)
        name_lines(panels[0], names)
        if forced:
            bars(panels[1], [forced.get(name, 0.0) for name in names], f"{statistic} when forced there, ms", ".3g")
            name_lines(panels[1], [""] * len(names))

    height = 70 + _BAR * len(evaluation.exits)
    title = f"Exits of {evaluation.name}, {evaluation.split} split"
    return Plot(
        title,
        draw(f"exits{number}", title, height, paint),
        f"{q.capitalized(report.metric_name)} and time of each exit alone.",
    )


def _training_curves(name: str, lines: Sequence[Mapping[str, float]], key: str, metric: str) -> Iterator[Plot]:
    """Yield the metric and the loss terms of a training, as far as its lines have them.

    Args:
        name: of the run.
        lines: its metrics.jsonl, one line for each epoch: "epoch", "loss/<term>", "val_<metric>/<exit>" and others.
        key: unique in the page.
        metric: of the task.
    """
    scores = _series(lines, rf"^val_{re.escape(metric)}/(.+)$", 100.0)
    if scores:
        yield Plot(
            f"Validation {metric} while training {name}",
            _curves(f"{key}a", f"validation {metric}, %", scores, logarithmic=False),
            "Each exit on the validation split.",
        )
    terms = _series(lines, r"^loss/(.+)$", 1.0)
    if terms:
        yield Plot(
            f"Loss terms while training {name}",
            _curves(f"{key}l", "weighted loss term", terms, logarithmic=_positive(terms)),
            "The weighted terms whose sum was minimised.",
        )


def _series(lines: Sequence[Mapping[str, float]], pattern: str, factor: float) -> dict[str, list[tuple[float, float]]]:
    """Return epochs and values by name, of long series some of them with both ends; not every line has all values."""
    series: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for key, value in line.items():
            match = re.match(pattern, key)
            if match:
                series.setdefault(match.group(1), []).append((line["epoch"], value * factor))
    return {name: _thinned(points) for name, points in series.items()}


def _thinned(points: list[_Position]) -> list[_Position]:
    chosen = np.linspace(0, len(points) - 1, min(len(points), _MAX_POINTS)).round().astype(int)
    return [points[at] for at in chosen]


def _positive(series: Mapping[str, list[tuple[float, float]]]) -> bool:
    return all(value > 0 for points in series.values() for _, value in points)


def _curves(key: str, ylabel: str, series: Mapping[str, list[tuple[float, float]]], *, logarithmic: bool) -> str:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        labels = []
        for index, (name, points) in enumerate(series.items()):
            x, y = np.array(points).T
            colour = SERIES[index % len(SERIES)]
            axes.plot(x, y, color=colour, linewidth=1.5, marker="o" if len(x) < 3 else None)
            labels.append(Label(name, float(x[-1]), float(y[-1]), colour))
        if logarithmic:
            axes.set_yscale("log")
            label_log_axis(axes.yaxis)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(ylabel + (" (log)" if logarithmic else ""))
        beside_line_ends(axes, labels)

    return draw(key, ylabel, 300, paint)
