"""compress: search the best way to deploy a trained network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import sdcompress
from sdcompress.cli.console import bar, command_line, say, table, write_json
from sdcompress.cli.options import (
    DataDir,
    Json,
    Out,
    Overwrite,
    Threads,
    TrustModules,
    check_one,
    complete_from,
    in_data_dir,
    milliseconds,
    share,
)

if TYPE_CHECKING:
    from sdcompress.schema.compression import Compression

__all__ = ["compress"]


def compress(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="checkpoints or training runs; drops are counted from the first, whole")
    ],
    out: Out,
    max_drop: Annotated[
        str | None,
        typer.Option("--max-drop", help="the fastest that loses at most this; default: the recipe's, 1%"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="the most accurate of at most this mean time of one sample, e.g. 2ms"),
    ] = None,
    confidence: Annotated[
        str | None, typer.Option("--confidence", help="that the drop is certified with; default: the recipe's, 95%")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            help="tried beside fp32; repeatable; default: the recipe's, uint8",
            autocompletion=complete_from("sdcompress.quantizing.precisions"),
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            help="exit policy that is tried; repeatable; default: the recipe's",
            autocompletion=complete_from("sdcompress.policies"),
        ),
    ] = None,
    ensembles: Annotated[
        bool | None,
        typer.Option(
            "--ensembles/--no-ensembles",
            help="whether to also try cascades whose exits average with earlier ones; default: the recipe's, yes",
        ),
    ] = None,
    finalists: Annotated[
        int | None, typer.Option("--finalists", help="candidates that are built and measured; default: the recipe's, 6")
    ] = None,
    data_dir: DataDir = None,
    threads: Threads = None,
    trust_modules: TrustModules = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Search the fastest artifact that keeps the metric: which exits, truncated where, which precision and policy.

    A search that was stopped continues. Exit code 4 if nothing meets the target or beats the whole network.

    Example: sdcompress compress runs/digits --max-drop 1% --out compressed
    """
    from sdcompress.options import Options

    both = max_drop is not None and target is not None
    check_one("--max-drop", "--target", both=both, allowed="one: the other is what is searched")
    settings = {
        "max_drop": None if max_drop is None else share(max_drop, "--max-drop"),
        "target_ms": None if target is None else milliseconds(target, "--target"),
        "confidence": None if confidence is None else share(confidence, "--confidence", "95%"),
        "precisions": None if precision is None else tuple(precision),
        "policies": None if policy is None else tuple(policy),
        "ensembles": ensembles,
        "finalists": finalists,
    }
    options = Options(threads=threads, data_dir=data_dir, trust_modules=trust_modules, command=command_line())
    given = {key: value for key, value in settings.items() if value is not None}
    record = sdcompress.compress(checkpoints, out, given, options, overwrite=overwrite, step_progress=bar)
    if json:
        write_json(record.model_dump(mode="json", exclude={"bench": {"records": {"__all__": {"raw_ms"}}}}))
    else:
        _show(record, out, data_dir)
    if record.best is None:
        raise typer.Exit(4)


def _show(record: Compression, out: Path, data_dir: Path | None) -> None:
    """Print what the page says."""
    from sdcompress.reporting.compression.findings import cautions, finalist_table, findings, headline

    drawn = finalist_table(record)
    table(list(drawn.columns), [list(row) for row in drawn.rows], drawn.title)
    for sentence in (headline(record), *findings(record)):
        say(sentence)
    for sentence in cautions(record):
        say(f"caution: {sentence}")
    say("", f"page: {out}/compress.html")
    if record.best:
        say(f"next: sdcompress evaluate {shlex.quote(f'{out}/best')} --split test{in_data_dir(data_dir)}")
