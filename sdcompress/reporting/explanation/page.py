"""Build the page of an explanation."""

from __future__ import annotations

from sdcompress.reporting import quantities as q
from sdcompress.reporting.explanation import tables
from sdcompress.reporting.explanation.findings import cautions, findings, headline
from sdcompress.reporting.explanation.plots import plots
from sdcompress.reporting.page import Page
from sdcompress.reporting.tables import machine, threads
from sdcompress.schema.explain import Explanation

__all__ = ["explanation_page"]


def explanation_page(explanation: Explanation) -> Page:
    """Return the sentences, tables and plots of an explanation as a page."""
    return Page(
        title=f"The exits of {explanation.source}",
        headline=headline(explanation),
        facts=tuple(_facts(explanation)),
        summary=tables.summary(explanation),
        plots=tuple(plots(explanation)),
        findings=tuple(findings(explanation)),
        cautions=tuple(cautions(explanation)),
        details=tuple(tables.details(explanation)),
        machines=(machine(explanation.machine, explanation.threads, "cpu"),),
        created=explanation.created,
        record="explain.json",
        command=explanation.command,
    )


def _facts(explanation: Explanation) -> list[str]:
    facts = [
        f"{q.count(explanation.samples)} images of the {explanation.split} split of {explanation.data}.",
        f"Artifact {explanation.digest}.",
    ]
    if explanation.turns_ms:
        facts.append(
            f"One image at a time on {explanation.machine.cpu}, {threads(explanation.threads)}: the median of "
            f"{len(explanation.turns_ms)} turns, with the lowest and the highest. The preparation of the input is not "
            "included; 'sdcompress bench' measures it too."
        )
    return [*facts, f"Policy {explanation.kind}. {explanation.guarantee}"] if explanation.kind else facts
