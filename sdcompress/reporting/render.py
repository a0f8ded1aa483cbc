"""Render a page as HTML, one file without scripts and external resources, or as Markdown with the same text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from sdcompress.reporting.page import Page, Table

__all__ = ["html", "markdown"]

# all characters that are markup in Markdown or HTML; a lone bracket (an interval) is not
_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_<>#|$~"} | {"\n": " ", "\r": " "})
_LINK = re.compile(r"\](?=[(\[:])")


def html(page: Page) -> str:
    """Return a page as HTML."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sdcompress.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        page=page,
        plots=[(plot, Markup(plot.svg)) for plot in page.plots],  # noqa: S704 - matplotlib escapes its text
        recipe=None if page.recipe is None else json.dumps(page.recipe, indent=2, ensure_ascii=False),
    )


def markdown(page: Page) -> str:
    """Return a page as Markdown. Plots are left out, because tables have their figures."""
    parts = [f"# {_text(page.title)}", f"**{_text(page.headline)}**"]
    parts += [_text(fact) for fact in page.facts]
    parts.append(_table(page.summary, heading=False))
    parts += [f"![{_text(picture.caption)}]({picture.file})" for picture in page.pictures]
    parts += _list("Findings", page.findings)
    parts += _list("Caveats", page.cautions)
    parts += [_table(table) for table in (*page.details, *page.machines)]
    parts += ["## Provenance", f"{_text(page.created)}", _code(page.command)]
    if page.recipe is not None:
        parts.append(_code(json.dumps(page.recipe, indent=2, ensure_ascii=False)))
    return "\n\n".join(parts) + "\n"


def _table(table: Table, *, heading: bool = True) -> str:
    lines = [f"## {_text(table.title)}", ""] if heading else []
    lines += [_line(table.columns), "|" + " --- |" + " ---: |" * (len(table.columns) - 1)]
    lines += [_line(row) for row in table.rows]
    lines += ["", _text(table.note)] if table.note else []
    return "\n".join(lines)


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _list(title: str, sentences: Sequence[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {_text(sentence)}" for sentence in sentences)] if sentences else []


def _code(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"


def _text(text: str) -> str:
    return _LINK.sub(r"\\]", text.translate(_SPECIAL))
