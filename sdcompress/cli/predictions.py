"""Predictions for image files, as a table or as CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence

from sdcompress.cli.screen import say, table
from sdcompress.printable import printable
from sdcompress.schema.prediction import FilePrediction

__all__ = ["show_predictions", "write_csv"]


def show_predictions(predictions: Sequence[FilePrediction]) -> None:
    """A row for each file, then the mean times."""
    rows = []
    for one in predictions:
        classes = ", ".join(f"{each.label} {each.probability:.1%}" for each in one.top)
        rows.append([one.file, one.error or classes, one.exit or "-", _ms(one.prepare_ms), _ms(one.run_ms)])
    table(["file", "class", "exit", "prepare ms", "run ms"], rows)
    whole = [one for one in predictions if one.run_ms is not None and one.prepare_ms is not None]
    if whole:
        prepare, run = (
            sum(times) / len(whole)
            for times in zip(*((one.prepare_ms or 0.0, one.run_ms or 0.0) for one in whole), strict=True)
        )
        say(f"{len(whole)} images, mean {prepare:.3f} ms to prepare and {run:.3f} ms to run")


def write_csv(predictions: Sequence[FilePrediction]) -> None:
    """Comma-separated values with a header (RFC 4180): one column pair for each class that is named."""
    most = max((len(one.top) for one in predictions), default=0)
    numbers = [""] if most <= 1 else [f"_{position}" for position in range(1, most + 1)]
    writer = csv.writer(sys.stdout)
    text = printable if sys.stdout.isatty() else str  # a file gets names as they are, a terminal nothing that acts
    pairs = [name + number for number in numbers for name in ("class", "probability")]
    writer.writerow(["file", *pairs, "exit", "prepare_ms", "run_ms", "error"])
    for one in predictions:
        classes = [cell for each in one.top for cell in (text(each.label), f"{each.probability:.6f}")]
        classes += [""] * (len(pairs) - len(classes))
        writer.writerow([text(one.file), *classes, one.exit, _ms(one.prepare_ms), _ms(one.run_ms), one.error])


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
