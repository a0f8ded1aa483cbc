"""The page of a report."""

from __future__ import annotations

from sdcompress.reporting import tables
from sdcompress.reporting.cautions import cautions
from sdcompress.reporting.classes import accuracies, confusions
from sdcompress.reporting.findings import findings, headline
from sdcompress.reporting.page import Page
from sdcompress.reporting.plots import plots
from sdcompress.reporting.rows import shown
from sdcompress.schema.report import BenchReport, Report

__all__ = ["report_page"]


def report_page(report: Report) -> Page:
    """Say and draw what a report holds."""
    return Page(
        title=report.title,
        headline=headline(report),
        facts=tuple(_measured(bench) for bench in report.benches),
        summary=tables.summary(report),
        plots=tuple(plots(report)),
        findings=tuple(findings(report)),
        cautions=tuple(cautions(report)),
        details=(
            *tables.networks(report),
            *tables.comparisons(report),
            *tables.latencies(report),
            *tables.exits(report),
            *(table for found in shown(report) for table in (accuracies(found), confusions(found)) if table),
        ),
        machines=tuple(tables.machine(bench.machine, bench.threads, bench.device) for bench in report.benches),
        created=report.created,
        record="report.json",
        command=report.command,
        recipe=report.recipe,
    )


def _measured(bench: BenchReport) -> str:
    gpu = f" with {bench.machine.gpu}" if bench.device != "cpu" and bench.machine.gpu else ""
    return f"Measured on {bench.machine.cpu}{gpu}, {tables.threads(bench.threads)}, {bench.created}."
