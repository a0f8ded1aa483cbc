"""A report as Markdown: the same sentences and tables as the HTML, for reviews and diffs."""

from __future__ import annotations

import json
import re

from sdcompress.reporting import tables
from sdcompress.reporting.findings import cautions, findings, headline
from sdcompress.reporting.tables import Table
from sdcompress.schema.report import Report

__all__ = ["markdown"]

# everything that Markdown or its HTML could take as markup; a lone bracket (an interval) is none
_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_<>#|$~"} | {"\n": " ", "\r": " "})
_LINK = re.compile(r"\](?=[(\[:])")


def markdown(report: Report) -> str:
    """Draw a report as Markdown."""
    parts = [f"# {_text(report.title)}", f"**{_text(headline(report))}**"]
    parts.append(_table(tables.summary(report), heading=False))
    parts += _list("Findings", findings(report))
    parts += _list("Before relying on this", cautions(report))
    for table in [*tables.exits(report), *tables.latencies(report), *tables.comparisons(report)]:
        parts.append(_table(table))
    for bench in report.benches:
        parts.append(_table(tables.machine(bench.machine, bench.threads, bench.device)))
    parts += ["## How it was made", f"{_text(report.created)}", _code(report.command)]
    if report.recipe is not None:
        parts.append(_code(json.dumps(report.recipe, indent=2, ensure_ascii=False)))
    return "\n\n".join(parts) + "\n"


def _table(table: Table, *, heading: bool = True) -> str:
    lines = [f"## {_text(table.title)}", ""] if heading else []
    lines += [_line(table.columns), "|" + " --- |" + " ---: |" * (len(table.columns) - 1)]
    lines += [_line(row) for row in table.rows]
    lines += ["", _text(table.note)] if table.note else []
    return "\n".join(lines)


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _list(title: str, sentences: list[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {_text(sentence)}" for sentence in sentences)] if sentences else []


def _code(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"


def _text(text: str) -> str:
    return _LINK.sub(r"\\]", text.translate(_SPECIAL))
