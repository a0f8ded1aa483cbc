"""report: write a report of runs and artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import sdcompress
from sdcompress.cli.console import command_line, ms, percent, say, table, write_json
from sdcompress.cli.options import Json, Out, Overwrite
from sdcompress.errors import UsageError

if TYPE_CHECKING:
    from sdcompress.schema.report import Report

__all__ = ["report", "show_report"]


def report(
    artifacts: Annotated[list[Path], typer.Argument(help="folders of artifacts: the rows")],
    out: Out,
    bench_file: Annotated[list[Path] | None, typer.Option("--bench", help="JSON of 'sdcompress bench --json'")] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option("--evaluation", help="JSON of 'sdcompress evaluate --json'; repeatable")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="title of the page")] = "report",
    reference: Annotated[str | None, typer.Option("--reference", help="folder name of the reference")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write report.json, report.md and one self-contained report.html.

    Example: sdcompress report artifacts/full artifacts/early-exit --bench bench.json --out report
    """
    from sdcompress.options import Options
    from sdcompress.reporting.read import read_result
    from sdcompress.schema.report import BenchReport, Evaluation

    built = sdcompress.report(
        _by_name(artifacts),
        out,
        Options(command=command_line()),
        evaluations=[read_result(path, Evaluation) for path in evaluation or []],
        benches=[read_result(path, BenchReport) for path in bench_file or []],
        title=title,
        reference=reference,
        overwrite=overwrite,
    )
    if json:
        write_json(built.model_dump(mode="json", exclude={"benches"}))
        return
    show_report(built)
    say("", f"report: {out / 'report.html'}")


def _by_name(artifacts: list[Path]) -> dict[str, Path]:
    """Return folders by their names, which become the rows of the report."""
    named = {path.resolve().name: path for path in artifacts}
    if len(named) < len(artifacts):
        raise UsageError(
            f"Two folders have one name: {', '.join(map(str, artifacts))}.",
            allowed="folders with different names, which name the rows",
            next_step="rename one, or name each once",
        )
    return named


def show_report(built: Report) -> None:
    """Print the table of a report."""
    rows = [
        [
            row.name,
            percent(row.test_metric),
            "-" if row.macs is None else f"{row.macs / 1e6:.2f} M",
            f"{row.parameters / 1e3:.1f} k",
            ms(row.p50_ms),
            ms(row.mean_ms),
            ms(row.end_to_end_ms),
            _times(row.speedup, row.speedup_low, row.speedup_high),
            _times(row.speedup_end_to_end, row.end_to_end_low, row.end_to_end_high),
        ]
        for row in built.rows
    ]
    title = built.title + (f": speed-up compared with {built.reference}" if built.reference else "")
    columns = [
        "network",
        f"test {built.metric_name}",
        "mean MACs",
        "parameters",
        "run p50 ms",
        "run mean ms",
        "end to end ms",
    ]
    table([*columns, "speed-up", "end to end"], rows, title)


def _times(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}x" + (f" [{low:.2f}, {high:.2f}]" if low and high else "")
