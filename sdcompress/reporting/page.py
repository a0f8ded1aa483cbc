"""The content of a page: sentences, tables and plots, shared by HTML and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdcompress.reporting.table import Table

__all__ = ["Page", "Picture", "Plot"]


@dataclass(frozen=True)
class Plot:
    """A plot with its heading and a sentence on how to read it."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """A picture with its heading and a sentence on how to read it.

    Attributes:
        title: its heading.
        png: the file in base64.
        file: name of the file that it is written to, beside the page.
        caption: the sentence.
    """

    title: str
    png: str
    file: str
    caption: str


@dataclass(frozen=True)
class Page:
    """A report or an explanation as sentences, tables and plots.

    Attributes:
        title: of the page.
        headline: the result in one sentence.
        facts: what was measured and on which machine, one sentence each.
        summary: the table under the headline.
        plots: SVG.
        findings: sentences on gains and losses.
        cautions: warnings about the figures.
        details: the other tables.
        machines: tables of the machines.
        created: UTC, ISO 8601.
        record: name of the JSON file that holds the evidence.
        command: what the user typed.
        recipe: the resolved recipe, if there is one.
        pictures: PNG files.
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
    pictures: tuple[Picture, ...] = ()
