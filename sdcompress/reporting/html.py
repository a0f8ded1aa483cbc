"""A report as one HTML file: no scripts, nothing loaded from anywhere, light and dark, screen, phone and paper."""

from __future__ import annotations

import json

import jinja2
from markupsafe import Markup

from sdcompress.reporting import tables
from sdcompress.reporting.findings import cautions, findings, headline
from sdcompress.reporting.plots import plots
from sdcompress.schema.report import Report

__all__ = ["page"]


def page(report: Report) -> str:
    """Draw a report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sdcompress.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        headline=headline(report),
        findings=findings(report),
        cautions=cautions(report),
        summary=tables.summary(report),
        plots=[(plot, Markup(plot.svg)) for plot in plots(report)],  # noqa: S704 - matplotlib escapes its text
        details=[*tables.comparisons(report), *tables.latencies(report), *tables.exits(report)],
        machines=[tables.machine(bench.machine, bench.threads, bench.device) for bench in report.benches],
        recipe=None if report.recipe is None else json.dumps(report.recipe, indent=2, ensure_ascii=False),
    )
