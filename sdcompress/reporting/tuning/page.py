"""Build the page of a search: the best trial, every trial, and where in the ranges good values lie."""

from __future__ import annotations

from sdcompress.reporting.page import Page, machine_table
from sdcompress.reporting.tuning.findings import best_trials, cautions, facts, findings, headline, trial_table
from sdcompress.reporting.tuning.plots import plots
from sdcompress.schema.tuning import Tuning

__all__ = ["tuning_page"]


def tuning_page(record: Tuning) -> Page:
    """Return the sentences, tables and plots of a search as a page."""
    return Page(
        title=f"Search for {record.method} on {record.data}",
        headline=headline(record),
        facts=tuple(facts(record)),
        summary=best_trials(record),
        plots=tuple(plots(record)),
        findings=tuple(findings(record)),
        cautions=tuple(cautions(record)),
        details=(trial_table(record, list(record.trials), "All trials in order"),),
        machines=(machine_table(record.machine, record.threads, str(record.recipe["train"]["device"])),),
        created=record.created,
        record="tuning.json",
        command=record.command,
        recipe=record.recipe,
    )
