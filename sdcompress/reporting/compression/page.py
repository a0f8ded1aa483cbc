"""Build the page of a search for the best way to deploy."""

from __future__ import annotations

from sdcompress.reporting.compression.findings import (
    candidate_table,
    cautions,
    facts,
    finalist_table,
    findings,
    headline,
)
from sdcompress.reporting.compression.plots import plots
from sdcompress.reporting.page import Page, machine_table
from sdcompress.schema.compression import Compression

__all__ = ["compression_page"]


def compression_page(record: Compression) -> Page:
    """Return the sentences, tables and plot of a search as a page."""
    return Page(
        title=f"Ways to deploy {', '.join(source.path for source in record.sources)}",
        headline=headline(record),
        facts=tuple(facts(record)),
        summary=finalist_table(record),
        plots=tuple(plots(record)),
        findings=tuple(findings(record)),
        cautions=tuple(cautions(record)),
        details=(candidate_table(record),),
        machines=(machine_table(record.machine, record.bench.threads, record.bench.device),),
        created=record.created,
        record="compress.json",
        command=record.command,
    )
