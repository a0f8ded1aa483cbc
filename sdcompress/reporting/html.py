"""Render a page as one HTML file without scripts and external resources, for screen, phone and print."""

from __future__ import annotations

import json

import jinja2
from markupsafe import Markup

from sdcompress.reporting.page import Page

__all__ = ["html"]


def html(page: Page) -> str:
    """Return a page as HTML."""
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
