"""quantize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdcompress.cli.completion import complete_from
from sdcompress.cli.options import DataDir, FreeThreads, Json, Out, Overwrite, share, threads_or_default
from sdcompress.cli.screen import bar, say, table, write_json

if TYPE_CHECKING:
    from sdcompress.schema.quantized import Quantized, Speed

__all__ = ["quantize"]


def quantize(
    artifact: Annotated[Path, typer.Argument(help="folder of an artifact in fp32")],
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="of 'sdcompress list precisions': int8, uint8, fp8, fp16, bf16",
            autocompletion=complete_from("sdcompress.quantizing.precisions"),
        ),
    ],
    out: Out,
    max_drop: Annotated[
        str | None,
        typer.Option(
            "--max-drop", help="accuracy that every exit may lose on the validation images; default: the recipe's, 1%"
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="training images that give int8, uint8 and fp8 ranges; default: 512")
    ] = None,
    data_dir: DataDir = None,
    threads: FreeThreads = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write an artifact in a lower precision; exit code 4 if an exit loses more than --max-drop.

    Policy and certificate are not taken over, as confidences move: calibrate the new artifact.

    Example: sdcompress quantize artifacts/cascade --precision int8 --out artifacts/cascade-int8
    """
    from sdcompress import api
    from sdcompress.options import Options

    allowed = None if max_drop is None else share(max_drop, "--max-drop")
    given = {"max_drop": allowed, "samples": samples}
    with bar("quantize") as progress:
        found = api.quantize(
            artifact,
            out,
            precision,
            {name: value for name, value in given.items() if value is not None},
            Options(threads=threads_or_default(threads), data_dir=data_dir, progress=progress),
            overwrite=overwrite,
        )
    if json:
        write_json(found.model_dump(mode="json"))
    else:
        _show(found)


def _show(found: Quantized) -> None:
    rows = [
        [
            change.name,
            f"{change.score_before:.2%}",
            f"{change.score_after:.2%}",
            f"{change.changed} ({change.changed / found.images:.2%})",
            f"{change.max_abs:.3g}",
        ]
        for change in found.exits
    ]
    table(["exit", "fp32", found.precision, "other answers", "largest difference of a logit"], rows)
    ranges = f"; ranges from {found.calibration_images} training images" if found.calibration_images else ""
    say(
        f"{found.artifact}: {found.precision}, measured on {found.images} validation images (at most "
        f"{found.max_drop:.2%} lost at every exit){ranges}"
    )
    others = "fp16 or fp32" if found.precision == "fp8" else "fp32"
    say(
        f"{found.bytes_before / 2**20:.2f} MiB -> {found.bytes_after / 2**20:.2f} MiB; {found.narrow} of "
        f"{found.narrow + found.wide} convolutions and products in {found.precision}, {found.wide} in {others}"
    )
    if found.speed:
        say(_speed(found.speed, found.precision))
    if found.dropped:
        say(f"not taken over, because confidences have moved: {', '.join(found.dropped)}")
    if len(found.exits) > 1:
        say(f"next: sdcompress calibrate {found.artifact} --out FOLDER")


def _speed(speed: Speed, precision: str) -> str:
    opening = {
        "faster": "faster here",
        "slower": "slower here",
        "no difference": "as fast here, as far as can be seen",
    }[speed.verdict]
    return (
        f"{opening}: {speed.ms:.3g} ms in {precision}, {speed.source_ms:.3g} ms in fp32, {speed.speedup:.2f}x "
        f"[{speed.low:.2f}, {speed.high:.2f}] as fast (one image, {speed.threads} thread{'s' * (speed.threads > 1)})"
    )
