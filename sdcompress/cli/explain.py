"""explain: show where samples exit and whether early exit pays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import sdcompress
from sdcompress.cli.console import bar, command_line, say, table, write_json
from sdcompress.cli.options import DataDir, Json, Out, Overwrite, Threads

if TYPE_CHECKING:
    from sdcompress.schema.explain import Explanation

__all__ = ["explain"]


def explain(
    artifact: Annotated[Path, typer.Argument(help="folder of an artifact")],
    out: Out,
    split: Annotated[Literal["validation", "test"], typer.Option("--split", help="split of the data set")] = "test",
    data_dir: DataDir = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Show where samples exit, what that costs on this machine, and whether early exit pays; with plots.

    Example: sdcompress explain artifacts/early-exit --out explained
    """
    from sdcompress.options import Options

    with bar("explain", timed=True) as progress:
        result = sdcompress.explain(
            artifact,
            out,
            Options(threads=threads, data_dir=data_dir, progress=progress, command=command_line()),
            split=split,
            overwrite=overwrite,
        )
    if json:
        write_json(result.model_dump(mode="json"))
        return
    _show(result)
    say("", f"explained: {out / 'explain.html'}")


def _show(result: Explanation) -> None:
    """Print the verdict, the summary and the findings of the page."""
    from sdcompress.reporting.explanation.findings import cautions, findings, headline
    from sdcompress.reporting.explanation.tables import summary

    rows = summary(result)
    table(list(rows.columns), [list(row) for row in rows.rows], f"{result.source} on {result.data}/{result.split}")
    for sentence in (headline(result), *findings(result)):
        say(sentence)
    for sentence in cautions(result):
        say(f"caution: {sentence}")
