"""The page of an explanation."""

from __future__ import annotations

from sdcompress.reporting import quantities as q
from sdcompress.reporting.explanation import tables
from sdcompress.reporting.explanation.findings import cautions, findings, headline
from sdcompress.reporting.explanation.plots import plots
from sdcompress.reporting.page import Page
from sdcompress.reporting.tables import machine, threads
from sdcompress.schema.explain import Explanation

__all__ = ["explanation_page"]


def explanation_page(found: Explanation) -> Page:
    """Say and draw what an explanation holds."""
    return Page(
        title=f"The exits of {found.source}",
        headline=headline(found),
        facts=tuple(_facts(found)),
        summary=tables.summary(found),
        plots=tuple(plots(found)),
        findings=tuple(findings(found)),
        cautions=tuple(cautions(found)),
        details=tuple(tables.details(found)),
        machines=(machine(found.machine, found.threads, "cpu"),),
        created=found.created,
        record="explain.json",
        command=found.command,
    )


def _facts(found: Explanation) -> list[str]:
    facts = [f"{q.count(found.samples)} images of the {found.split} split of {found.data}; artifact {found.digest}."]
    if found.turns_ms:
        facts.append(
            f"One image at a time on {found.machine.cpu}, {threads(found.threads)}: the median of"
            f" {len(found.turns_ms)} turns, with the lowest and the highest. The preparation of the input is not in it:"
            " 'sdcompress bench' measures that too."
        )
    return [*facts, f"Policy {found.kind}. {found.guarantee}"] if found.kind else facts
