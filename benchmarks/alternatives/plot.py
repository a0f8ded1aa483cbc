"""Draw accuracy against time from compare.json: python plot.py writes plot.svg, for light and dark pages."""

from __future__ import annotations

import io
import json
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

HERE = Path(__file__).parent
# label, row of compare.json, colour, offset of the label in points, alignment
POINTS = (
    ("whole network", "whole network, self-distilled", "whole", (0, 9), "right"),
    ("truncated at exit 3", "truncated at exit3, self-distilled", "exit", (9, -4), "left"),
    ("truncated at exit 2", "truncated at exit2, self-distilled", "exit", (9, -4), "left"),
    ("truncated at exit 1", "truncated at exit1, self-distilled", "exit", (9, -4), "left"),
    ("early exit at exits 2 and 3", "fp32, early exit, margin, only exit2 and exit3", "early", (0, -16), "center"),
    ("8 bits (uint8)", "whole network in uint8", "whole", (9, 4), "left"),
    ("8 bits and early exit at exit 2", "uint8, early exit, margin, only exit2", "early", (9, -12), "left"),
    ("smaller network", "smaller network, trained as long", "other", (9, -4), "left"),
)
# stand-ins for the colours of a light and of a dark page
COLOURS = {
    "ink": ("#010201", "#1f2328", "#e6edf3"),
    "grid": ("#010202", "#d8dee4", "#30363d"),
    "paper": ("#010203", "#ffffff", "#0d1117"),
    "whole": ("#010204", "#0969da", "#58a6ff"),
    "exit": ("#010205", "#9a6700", "#d29922"),
    "early": ("#010206", "#1a7f37", "#3fb950"),
    "other": ("#010207", "#6e7781", "#8b949e"),
}
STAND_IN = {name: colours[0] for name, colours in COLOURS.items()}


def figure() -> Figure:
    """Each network as a point: mean milliseconds of one image, test accuracy."""
    record = json.loads((HERE / "compare.json").read_text(encoding="utf-8"))
    rows = {row["row"]: row for row in record["figures"]["rows"]}
    drawn = Figure((7.2, 3.9), facecolor=STAND_IN["paper"], layout="constrained")
    axes = drawn.subplots()
    for label, name, colour, offset, align in POINTS:
        place = rows[name]["mean_ms"], 100 * rows[name]["test_accuracy"]
        axes.plot(*place, "o", markersize=8, color=STAND_IN[colour])
        axes.annotate(label, place, offset, textcoords="offset points", ha=align, color=STAND_IN[colour])
    axes.set(xlim=(0.15, 0.8), ylim=(46.5, 56.5), xlabel="milliseconds for one image, mean (less is faster)")
    axes.set_ylabel("test accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True)
    return drawn


def svg(drawn: Figure) -> str:
    """The figure with its stand-ins as CSS variables, which follow the reader's choice of light or dark."""
    text = io.StringIO()
    drawn.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    light, dark = (";".join(f"--{name}:{colours[at]}" for name, colours in COLOURS.items()) for at in (1, 2))
    style = f"<style>:root{{{light}}} @media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    page = text.getvalue().replace("<defs>", f"{style}\n <defs>", 1)
    for name, stand_in in STAND_IN.items():
        page = page.replace(stand_in, f"var(--{name})")
    return "".join(f"{line.rstrip()}\n" for line in page.splitlines())


if __name__ == "__main__":
    ink, grid = STAND_IN["ink"], STAND_IN["grid"]
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sdcompress", "font.family": "sans-serif"})
    mpl.rcParams.update({"font.size": 10, "axes.facecolor": "none", "axes.edgecolor": grid, "grid.color": grid})
    mpl.rcParams.update({"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink})
    (HERE / "plot.svg").write_text(svg(figure()), encoding="utf-8")
