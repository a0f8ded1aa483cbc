"""Draw the candidates and finalists of a search: metric against mean milliseconds."""

from __future__ import annotations

from matplotlib.figure import Figure

from sdcompress.reporting import quantities as q
from sdcompress.reporting._figure import INK, MUTED, SERIES, Label, beside_points, draw
from sdcompress.reporting.compression.findings import points
from sdcompress.reporting.page import Plot
from sdcompress.schema.compression import Compression

__all__ = ["plots"]

_COLOURS = {"single": SERIES[1], "cascade": SERIES[0], "if": SERIES[0]}


def plots(record: Compression) -> list[Plot]:
    """Return the plot of all candidates, finalists and the reference."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xlabel("mean ms of one sample")
        axes.set_ylabel(f"validation {record.metric_name}, %")
        for one in record.candidates:
            axes.plot(one.ms, (record.reference_metric - one.drop) * 100, ".", color=MUTED, markersize=4)
        labels = []
        for candidate, ms, metric in points(record):
            colour = _COLOURS[candidate.layout]
            axes.plot(ms, metric * 100, "o", color=colour, markersize=7)
            if candidate.name == record.best:
                axes.plot(ms, metric * 100, "o", color=INK, markersize=13, markerfacecolor="none")
            labels.append(Label(candidate.name, ms, metric * 100, colour))
        reference_ms = record.mean_ms(record.reference)
        if reference_ms is not None:
            axes.plot(reference_ms, record.reference_metric * 100, "s", color=INK, markersize=7)
            labels.append(Label(record.reference, reference_ms, record.reference_metric * 100, INK))
        if record.settings.target_ms is not None:
            axes.axvline(record.settings.target_ms, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.margins(x=0.15, y=0.15)
        axes.set_xlim(left=0)
        beside_points(axes, labels)

    alt = f"{record.metric_name} against milliseconds of {len(record.finalists)} finalists"
    caption = (
        "Up and left is better. Large points: measured finalists, with early exit (blue) and without (orange); square: "
        "the reference; ring: the best. Small points: candidates, as estimated."
    )
    return [Plot(f"{q.capitalized(record.metric_name)} against time", draw("search", alt, 340, paint), caption)]
