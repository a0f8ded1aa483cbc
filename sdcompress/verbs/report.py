"""report: write the results of artifacts as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdcompress.artifact.read import Artifact
from sdcompress.options import Options
from sdcompress.reporting.report.build import build as build_report
from sdcompress.reporting.write import write as write_report
from sdcompress.schema.recipe import Recipe
from sdcompress.schema.report import BenchReport, Evaluation, Report
from sdcompress.verbs._types import Folder

__all__ = ["report"]


def report(
    artifacts: Mapping[str, Artifact | Folder],
    out: Folder,
    options: Options | None = None,
    *,
    evaluations: Sequence[Evaluation] = (),
    benches: Sequence[BenchReport] = (),
    title: str = "report",
    reference: str | None = None,
    recipe: Recipe | None = None,
    training: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    overwrite: bool = False,
) -> Report:
    """Write report.json, report.md and report.html into a folder.

    Args:
        artifacts: name of a row -> folder.
        out: the folder.
        options: the command, for the record.
        evaluations: of these artifacts, from ``evaluate``.
        benches: of these artifacts, from ``bench``.
        title: of the page.
        reference: name of the row that the others are compared with.
        recipe: of all artifacts.
        training: metrics of each epoch, by method.
        overwrite: replace an existing report.
    """
    built = build_report(
        title=title,
        command=(options or Options()).command,
        artifacts=artifacts,
        evaluations=evaluations,
        benches=benches,
        recipe=None if recipe is None else recipe.model_dump(mode="json"),
        training=training,
        reference=reference,
    )
    write_report(built, out, overwrite=overwrite)
    return built
