"""From a matplotlib figure to an SVG that lives inside a page: its text stays text, its colours follow the page."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins that no plot uses for itself: each becomes a CSS variable of the page, which has a light and a dark value.
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
        alt: what the figure shows, for those who cannot see it.
        height: px.
        paint: draws on the figure.
        width: px at which a letter has its size.
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
