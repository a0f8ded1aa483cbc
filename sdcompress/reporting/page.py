"""What a page says, whatever draws it: sentences, tables and plots, the same for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdcompress.reporting.table import Table

__all__ = ["Page", "Plot"]


@dataclass(frozen=True)
class Plot:
    """A drawing with its heading and a sentence on how to read it."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Page:
    """A record in words, figures and drawings.

    Attributes:
        title: of the page.
        headline: the one sentence that everybody reads.
        facts: what was measured on what, a sentence each.
        summary: the table under the headline.
        plots: SVG.
        findings: sentences, good news and bad alike.
        cautions: what to know before relying on them.
        details: the other tables.
        machines: what the figures were measured on.
        created: UTC, ISO 8601.
        record: name of the JSON file that holds the evidence.
        command: what the user typed.
        recipe: the resolved recipe, where there is one.
    """

    title: str
    headline: str
    facts: tuple[str, ...]
    summary: Table
    plots: tuple[Plot, ...]
    findings: tuple[str, ...]
    cautions: tuple[str, ...]
    details: tuple[Table, ...]
    machines: tuple[Table, ...]
    created: str
    record: str
    command: str
    recipe: Mapping[str, Any] | None = None
