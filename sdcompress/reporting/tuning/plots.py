"""Draw the plots of a search: every trial in order, and the metric against each searched key."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sdcompress.reporting import quantities as q
from sdcompress.reporting._figure import INK, MUTED, SERIES, draw, label_log_axis
from sdcompress.reporting.page import Plot
from sdcompress.reporting.tuning.findings import shown
from sdcompress.schema.search import SearchRange
from sdcompress.schema.tuning import Tuning

__all__ = ["plots"]

_COLOURS = {"complete": SERIES[0], "pruned": MUTED, "diverged": SERIES[5], "refused": SERIES[5]}


def plots(record: Tuning) -> list[Plot]:
    """Return the plots of a search."""
    return [_history(record), *(_values(record, key) for key in record.settings.search)]


def _history(record: Tuning) -> Plot:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        best, line = -1.0, []
        for trial in record.trials:
            best = max(best, trial.metric) if trial.state == "complete" else best
            line.append((trial.number, best * 100))
        axes.plot(*zip(*[at for at in line if at[1] >= 0], strict=True), color=SERIES[1], drawstyle="steps-post")
        _points(axes, record, [float(trial.number) for trial in record.trials])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trial")

    metric = q.capitalized(record.metric_name)
    caption = "Points: trials. Line: the best complete trial so far. Grey: pruned. Red: diverged or refused."
    return Plot("The search", draw("history", f"{metric} of every trial", 300, paint), caption)


def _values(record: Tuning, key: str) -> Plot:
    range_ = SearchRange.parse(record.settings.search[key])

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        if range_.kind == "choice":
            at = {choice: place for place, choice in enumerate(range_.choices)}
            _points(axes, record, [float(at.get(trial.values[key], -1)) for trial in record.trials])
            axes.set_xticks(list(at.values()), [shown(choice) for choice in at])
            axes.margins(x=0.2)
        else:
            _points(axes, record, [float(trial.values[key]) for trial in record.trials])
            if range_.kind == "log":
                axes.set_xscale("log")
                axes.set_xlim(range_.low / 1.1, range_.high * 1.1)
                label_log_axis(axes.xaxis)
        axes.set_xlabel(key)

    return Plot(
        key, draw(key.replace(".", "-"), f"Metric against {key}", 300, paint), "A flat cloud: it matters little."
    )


def _points(axes: Axes, record: Tuning, places: list[float]) -> None:
    """Draw one point for each trial, a ring around the best."""
    for trial, place in zip(record.trials, places, strict=True):
        axes.plot(place, trial.metric * 100, marker="o", color=_COLOURS[trial.state], markersize=6, linestyle="none")
        if trial.number == record.best:
            axes.plot(place, trial.metric * 100, marker="o", color=INK, markersize=12, markerfacecolor="none")
    axes.set_ylabel(f"validation {record.metric_name}, %")
