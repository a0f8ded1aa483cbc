"""Build the page of a report."""

from __future__ import annotations

from sdcompress.reporting import quantities as q
from sdcompress.reporting.page import DECISIONS, Page, Picture, machine_table
from sdcompress.reporting.report import tables
from sdcompress.reporting.report.findings import cautions, findings, headline
from sdcompress.reporting.report.plots import plots
from sdcompress.reporting.report.rows import shown_evaluations
from sdcompress.reporting.report.strata import confusions, stratum_table
from sdcompress.schema.report import BenchReport, Report

__all__ = ["report_page"]


def report_page(report: Report) -> Page:
    """Return the sentences, tables and plots of a report as a page."""
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
            *(
                table
                for evaluation in shown_evaluations(report)
                for table in (stratum_table(evaluation), confusions(evaluation))
                if table
            ),
        ),
        machines=tuple(machine_table(bench.machine, bench.threads, bench.device) for bench in report.benches),
        created=report.created,
        record="report.json",
        command=report.command,
        recipe=report.recipe,
        pictures=_pictures(report),
    )


def _pictures(report: Report) -> tuple[Picture, ...]:
    """Return the picture of the network with most exits: the others of one training show the same ones."""
    drawn = [evaluation for evaluation in shown_evaluations(report) if evaluation.pictures]
    if not drawn:
        return ()
    most = max(drawn, key=lambda evaluation: len(evaluation.exits))
    assert most.pictures is not None, "asked above"
    caption = f"Samples of the {most.split} split: the input, the target, and what each exit of '{most.name}' decides."
    return (Picture("What the exits decide", most.pictures, DECISIONS, caption),)


def _measured(bench: BenchReport) -> str:
    gpu = f" with {bench.machine.gpu}" if bench.device != "cpu" and bench.machine.gpu else ""
    return f"Measured on {bench.machine.cpu}{gpu}, {q.threads(bench.threads)}, {bench.created}."
