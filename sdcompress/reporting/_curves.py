"""How training went: accuracy of each exit and the loss terms, epoch by epoch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sdcompress.reporting._axes import label_log_axis
from sdcompress.reporting._labels import Label, beside_line_ends
from sdcompress.reporting._svg import SERIES, draw

_MOST_POINTS = 300


def training(name: str, lines: Sequence[Mapping[str, float]], key: str) -> Iterable[tuple[str, str, str]]:
    """Title, SVG and caption of each curve that the metrics of a run give.

    Args:
        name: of the run.
        lines: of its metrics.jsonl, one for each epoch: "epoch", "loss/<term>", "val_accuracy/<exit>" and others.
        key: unique in the page.
    """
    lines = lines[:: max(1, len(lines) // _MOST_POINTS)]
    accuracies = _series(lines, r"^val_accuracy/(.+)$", 100.0)
    if accuracies:
        yield (
            f"Validation accuracy while training {name}",
            _curves(f"{key}a", "validation accuracy, %", accuracies, logarithmic=False),
            "Each exit on the validation split.",
        )
    terms = _series(lines, r"^loss/(.+)$", 1.0)
    if terms:
        yield (
            f"Loss terms while training {name}",
            _curves(f"{key}l", "weighted loss term", terms, logarithmic=_positive(terms)),
            "The terms that were summed and minimised, already weighted.",
        )


def _series(lines: Sequence[Mapping[str, float]], pattern: str, factor: float) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for key, value in line.items():
            match = re.match(pattern, key)
            if match:
                found.setdefault(match.group(1), []).append((line["epoch"], value * factor))
    return found


def _positive(series: Mapping[str, list[tuple[float, float]]]) -> bool:
    return all(value > 0 for places in series.values() for _, value in places)


def _curves(key: str, ylabel: str, series: Mapping[str, list[tuple[float, float]]], *, logarithmic: bool) -> str:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        labels = []
        for index, (name, places) in enumerate(series.items()):
            x, y = np.array(places).T
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
