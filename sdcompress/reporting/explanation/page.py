"""Build the page of an explanation."""

from __future__ import annotations

from sdcompress.reporting import quantities as q
from sdcompress.reporting.explanation import tables
from sdcompress.reporting.explanation.findings import cautions, findings, headline
from sdcompress.reporting.explanation.plots import plots
from sdcompress.reporting.page import Page, machine_table
from sdcompress.schema.explain import Explanation

__all__ = ["explanation_page"]


def explanation_page(record: Explanation) -> Page:
    """Return the sentences, tables and plots of an explanation as a page."""
    return Page(
        title=f"The exits of {record.source}",
        headline=headline(record),
        facts=tuple(_facts(record)),
        summary=tables.summary(record),
        plots=tuple(plots(record)),
        findings=tuple(findings(record)),
        cautions=tuple(cautions(record)),
        details=tuple(tables.details(record)),
        machines=(machine_table(record.machine, record.threads, "cpu"),),
        created=record.created,
        record="explain.json",
        command=record.command,
    )


def _facts(record: Explanation) -> list[str]:
    facts = [
        f"{q.count(record.samples)} samples of the {record.split} split of {record.data}.",
        f"Artifact {record.digest}.",
    ]
    if record.turns_ms:
        facts.append(
            f"One sample at a time on {record.machine.cpu}, {q.threads(record.threads)}: the median of "
            f"{len(record.turns_ms)} rounds, with the lowest and the highest. The preparation of the input is not "
            "included; 'sdcompress bench' measures it too."
        )
    return [*facts, f"Policy {record.policy_name}. {record.guarantee}"] if record.policy_name else facts
