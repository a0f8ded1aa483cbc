"""quantize: write an artifact in a lower precision."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import sdcompress
from sdcompress.cli.console import bar, say, table, write_json
from sdcompress.cli.options import (
    DataDir,
    FreeThreads,
    Json,
    Out,
    Overwrite,
    complete_from,
    in_data_dir,
    share,
    threads_or_default,
)

if TYPE_CHECKING:
    from sdcompress.schema.change import Quantized, Speed

__all__ = ["quantize"]


def quantize(
    artifact: Annotated[Path, typer.Argument(help="folder of an artifact in fp32")],
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="one of 'sdcompress list precisions': int8, uint8, fp8, fp16, bf16",
            autocompletion=complete_from("sdcompress.quantizing.precisions"),
        ),
    ],
    out: Out,
    max_drop: Annotated[
        str | None,
        typer.Option(
            "--max-drop",
            help="largest drop of every exit on the validation split; default: the recipe's, 1%",
        ),
    ] = None,
    calibration_samples: Annotated[
        int | None,
        typer.Option(
            "--calibration-samples",
            help="training samples for the ranges of int8, uint8 and fp8; default: 512",
        ),
    ] = None,
    data_dir: DataDir = None,
    threads: FreeThreads = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write an artifact in a lower precision; exit code 4 if an exit loses more than --max-drop.

    The new artifact has no policy and no certificate, because scores change: calibrate it.

    Example: sdcompress quantize artifacts/cascade --precision int8 --out artifacts/cascade-int8
    """
    from sdcompress.options import Options

    allowed = None if max_drop is None else share(max_drop, "--max-drop")
    overrides = {"max_drop": allowed, "calibration_samples": calibration_samples}
    with bar("quantize") as progress:
        result = sdcompress.quantize(
            artifact,
            out,
            precision,
            {name: value for name, value in overrides.items() if value is not None},
            Options(threads=threads_or_default(threads), data_dir=data_dir, progress=progress),
            overwrite=overwrite,
        )
    if json:
        write_json(result.model_dump(mode="json"))
    else:
        _show(result, data_dir)


def _show(result: Quantized, data_dir: Path | None) -> None:
    rows = [
        [
            change.name,
            f"{change.metric_before:.2%}",
            f"{change.metric_after:.2%}",
            change.changes_text,
            f"{change.max_abs_diff:.3g}",
        ]
        for change in result.exits
    ]
    table(["exit", "fp32", result.precision, "other decisions", "largest difference of an output"], rows)
    ranges = f"; ranges from {result.calibration_samples} training samples" if result.calibration_samples else ""
    say(
        f"{result.artifact}: {result.precision}, measured on {result.samples} validation samples (at most "
        f"{result.max_drop:.2%} lost at every exit){ranges}"
    )
    others = "fp16 or fp32" if result.precision == "fp8" else "fp32"
    say(
        f"{result.bytes_before / 2**20:.2f} MiB -> {result.bytes_after / 2**20:.2f} MiB; {result.low_precision_ops} of "
        f"{result.low_precision_ops + result.high_precision_ops} convolutions and products in {result.precision}, "
        f"{result.high_precision_ops} in {others}"
    )
    if result.speed:
        say(_speed(result.speed, result.precision))
    if result.dropped:
        say(f"removed, because scores have changed: {', '.join(result.dropped)}")
    if len(result.exits) > 1 and sdcompress.inspect(result.artifact).layout == "cascade":
        say(f"next: sdcompress calibrate {shlex.quote(result.artifact)} --out FOLDER{in_data_dir(data_dir)}")


def _speed(speed: Speed, precision: str) -> str:
    opening = {
        "faster": "faster here",
        "slower": "slower here",
        "no difference": "no measurable difference here",
    }[speed.verdict]
    return (
        f"{opening}: {speed.ms:.3g} ms in {precision}, {speed.source_ms:.3g} ms in fp32, {speed.speedup:.2f}x "
        f"[{speed.low:.2f}, {speed.high:.2f}] as fast (one sample, {speed.threads} thread{'s' * (speed.threads > 1)})"
    )
