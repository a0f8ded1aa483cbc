"""The content of a page: sentences, tables and plots; rendered as HTML and Markdown, its tables in the terminal too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sdcompress.reporting import quantities as q
from sdcompress.schema.report import Machine

__all__ = ["DECISIONS", "Page", "Picture", "Plot", "Table", "machine_table"]

DECISIONS = "decisions.png"  # the file of a report's picture


@dataclass(frozen=True)
class Table:
    """Text cells; the first column is a name, the others are right-aligned.

    Args:
        title: what the table shows.
        columns: headings, with the unit if all cells share it.
        rows: cells, each row as long as ``columns``.
        note: how to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def without_empty_columns(self) -> Table:
        """Return the table without columns whose cells are all empty."""
        filled = [i for i in range(len(self.columns)) if any(row[i] != q.NOTHING for row in self.rows)]
        rows = tuple(tuple(row[i] for i in filled) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in filled), rows=rows)


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


def machine_table(facts: Machine, thread_count: int, device: str) -> Table:
    """Return the table of the machine that measured.

    Args:
        facts: the machine.
        thread_count: threads.
        device: "cpu" or "cuda".
    """
    rows = [
        ("processor", f"{facts.cpu}, {facts.cores} cores usable"),
        ("vector extensions", ", ".join(facts.isa) or "unknown"),
        ("memory", f"{facts.memory_gib:g} GiB"),
        ("GPU", facts.gpu or "none"),
        ("used", f"{q.threads(thread_count)} on {device}"),
        ("system", f"{facts.os}, Python {facts.python}"),
        ("governor", facts.governor or "not visible"),
        ("busy with other work", "unknown" if facts.busy_cores is None else f"{facts.busy_cores:.2f} cores"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(facts.versions.items()))),
    ]
    return Table("Machine", ("", ""), tuple(rows))
