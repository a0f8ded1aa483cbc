"""Draw the table of all measured kinds and a plot of each: python benchmarks/answers/draw.py [--png FOLDER]."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdcompress.reporting import _figure as drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
# kind of a row: colour, marker, and what the key calls it
KINDS = {
    "plain": (drawing.INK, "s", "trained without exits"),
    "distilled": (drawing.SERIES[0], "o", "self-distilled, whole"),
    "truncated": (drawing.SERIES[1], "o", "self-distilled, truncated"),
    "early": (drawing.SERIES[2], "D", "early exit"),
    "bits": (drawing.SERIES[3], "o", "8 bits"),
    "both": (drawing.SERIES[4], "D", "8 bits and early exit"),
    "pruned": (drawing.SERIES[5], "o", "pruned"),
    "all": (drawing.SERIES[5], "D", "pruned, 8 bits and early exit"),
    "smaller": (drawing.MUTED, "s", "smaller network, trained without exits"),
}
# what a plot is drawn against -> the end of its file's name, and what its axis calls it
AXES = {"mean_ms": ("", "mean"), "p50_ms": ("-p50", "p50")}
# for a light and for a dark page
COLOURS = {
    "ink": ("#1b1f24", "#e7eaee"),
    "muted": ("#667080", "#98a2af"),
    "grid": ("#dfe3e8", "#323941"),
    "series0": ("#0067b0", "#5fb0f2"),
    "series1": ("#b35900", "#ff9352"),
    "series2": ("#0a7d57", "#4cc79a"),
    "series3": ("#a8428a", "#e58bcb"),
    "series4": ("#c0272d", "#ff7b72"),
    "series5": ("#5b4bc4", "#a99cff"),
}
Figures = dict[str, Any]


def draw_all(png: Path | None = None) -> None:
    """Write ``table.md`` and the plots from the JSON files beside this script."""
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("*.json"))}
    (HERE / "table.md").write_text("\n".join(section(kind, record) for kind, record in records.items()), "utf-8")
    for kind, record in records.items():
        for against, (ending, _) in AXES.items():
            (HERE / f"{kind}{ending}.svg").write_text(svg(kind, record, against), encoding="utf-8")
            if png:
                photograph(HERE / f"{kind}{ending}.svg", png / f"{kind}{ending}.png")


def section(kind: str, record: Figures) -> str:
    """Return the table of a kind with its heading and how it was measured."""
    figures = record["figures"]
    further = figures["further"]
    titles = (
        "",
        f"test {figures['score']} [95 %]",
        "difference, points [95 %]",
        *(title.removesuffix("%").rstrip(", ") for title in further.values()),
        "mean ms",
        "p50 ms",
        "p99 ms",
        "speed-up of the mean [95 %]",
        "predicted / measured",
        "at test shares",
        "MB",
        "MMACs",
        "artifact",
    )
    rows = [_missing(row, len(titles)) if row.get("missing") else _cells(row, further) for row in figures["rows"]]
    table = [f"| {' | '.join(line)} |" for line in (titles, ["---"] * len(titles), *rows)]
    return "\n".join([f"## {kind}: {figures['title']}", "", *table, "", _how(kind, record), ""])


def _how(kind: str, record: Figures) -> str:
    """Return the sentences under the table."""
    figures, settings, machine = record["figures"], record["settings"], record["machine"]
    measured = [row for row in figures["rows"] if not row.get("missing")]
    unsteady, busy = sum(not row["stable"] for row in measured), machine["busy_cores"]
    clock = "Processor time" if settings["processor_time"] else "Time"
    reference, others = measured[0]["name"], "an unknown number of" if busy is None else f"{busy:.1f}"
    sentences = (
        f"{figures['test_samples']:,} test samples.",
        f"{clock} of {figures['example']} on one thread, {settings['seconds']:g} s of calls a row,",
        f"{settings['rounds']} interleaved rounds; differences and speed-ups are from '{reference}'.",
        f"{record['date'][:16]}, commit {record['commit'][:7]}, {machine['cpu']},",
        f"onnxruntime {machine['versions']['onnxruntime']}.",
        f"Before the run other work used {others} cores; {unsteady} of {len(measured)} rows were not steady.",
        f"What is not measured: `answer.py ROOT {kind} --train`." if len(measured) < len(figures["rows"]) else "",
    )
    return " ".join(filter(None, sentences))


def _missing(row: Figures, columns: int) -> list[str]:
    return [row["name"], "not measured", *[""] * (columns - 2)]


def _cells(row: Figures, further: dict[str, str]) -> list[str]:
    prediction = row.get("prediction") or {}
    return [
        row["name"]
        + ("; no certificate, so that none exits early" if row.get("guarantee") == "no certificate" else ""),
        _percent(row["metric"]),
        _points(row["difference"]),
        *(_further(row["further"].get(name), title) for name, title in further.items()),
        f"{row['mean_ms']:.3g}",
        _number(row["p50_ms"]),
        _number(row["p99_ms"]),
        "reference" if row["speedup"] is None else "{:.2f}x [{:.2f}, {:.2f}]".format(*row["speedup"]),
        *(_ratio(prediction.get(name)) for name in ("ratio", "at_test_shares_ratio")),
        f"{row['bytes'] / 1e6:.2f}",
        f"{row['macs'] / 1e6:.4g}",
        f"`{row['digest'][:8]}`",
    ]


def _ratio(value: list[float] | None) -> str:
    return "" if value is None else "{:.2f} [{:.2f}, {:.2f}]".format(*value)


def _percent(value: list[float]) -> str:
    return "{:.2f} % [{:.1f}, {:.1f}]".format(*(100 * each for each in value))


def _points(value: list[float] | None) -> str:
    return "" if value is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * each for each in value))


def _further(value: float | None, title: str) -> str:
    return "" if value is None else f"{100 * value:.2f} %" if title.endswith("%") else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "too few calls" if value is None else f"{value:.3g}"


def svg(kind: str, record: Figures, against: str = "mean_ms") -> str:
    """Return the metric against milliseconds as a file of its own, for light and dark pages.

    Args:
        kind: name of the plan.
        record: what answer.py wrote.
        against: of ``AXES``; rows with too few calls for it are left out, and those without a label.
    """
    figures = record["figures"]
    labelled = [row for row in figures["rows"] if "label" in row and not row.get("missing")]
    rows = [row for row in labelled if row[against] is not None]
    alt = f"test {figures['score']} against milliseconds ({AXES[against][1]}): {figures['title']}"
    element = drawing.draw(
        f"{kind}{AXES[against][0]}", alt, 400, lambda figure: _paint(figure, record, rows, against), width=720
    )
    light, dark = (";".join(f"--{name}:{colours[at]}" for name, colours in COLOURS.items()) for at in (0, 1))
    style = (
        f"<style>:root{{{light}}} @media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
        " text{font-family:'DejaVu Sans',Verdana,sans-serif}</style>"
    )
    opening, rest = element.split(">", 1)
    page = opening.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + f">{style}" + rest
    return "".join(f"{line.rstrip()}\n" for line in page.splitlines())


def _paint(figure: Figure, record: Figures, rows: list[Figures], against: str) -> None:
    figures, axes = record["figures"], figure.subplots()
    free = []
    for kind, (colour, marker, name) in KINDS.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        if not of_kind:
            continue
        x = [row[against] for row in of_kind]
        y, low, high = ([100 * row["metric"][at] for row in of_kind] for at in range(3))
        bars = [[a - b for a, b in zip(y, low, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
        axes.errorbar(
            x, y, bars, fmt=marker, color=colour, markersize=8, elinewidth=1.1, capsize=3, zorder=3, label=name
        )
        free += [
            (at, bottom + (top - bottom) * part / 20)
            for at, bottom, top in zip(x, low, high, strict=True)
            for part in range(21)
        ]
    axes.margins(x=0.1, y=0.06)
    axes.set_xlim(left=0)
    clock = ", processor time" if record["settings"]["processor_time"] else ""
    axes.set_xlabel(f"milliseconds for {figures['example']}, {AXES[against][1]}, one thread{clock} (less is faster)")
    axes.set_ylabel(f"test {figures['score']}, %")
    axes.set_title(figures["title"], loc="left", fontsize=11)
    labels = [
        drawing.Label(
            _label(row, rows[0][against], against), row[against], 100 * row["metric"][0], KINDS[row["kind"]][0]
        )
        for row in rows
    ]
    drawing.beside_points(axes, labels, free)


def _label(row: Figures, reference_ms: float, against: str) -> str:
    return row["label"] if row["speedup"] is None else f"{row['label']}, {reference_ms / row[against]:.1f}x"


def photograph(file: Path, out: Path) -> None:
    """Write a PNG of an SVG as a browser shows it."""
    browser = shutil.which("chromium")
    assert browser is not None, "a picture needs Debian's chromium"
    size = ["--window-size=760,440", "--force-device-scale-factor=1.5", "--hide-scrollbars"]
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", *size, f"--screenshot={out}", file.as_uri()]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--png", type=Path, help="also write PNG files there")
    draw_all(read.parse_args().png)
