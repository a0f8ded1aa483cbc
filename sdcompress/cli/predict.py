"""predict: predict files, printed as a table, CSV or JSON."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import sdcompress
from sdcompress.cli.console import bar, say, table, write_json
from sdcompress.cli.options import AllowUncertified, AnyBackend, Device, Json, Threads, TrustModules, check_one
from sdcompress.errors import UsageError
from sdcompress.printable import printable

if TYPE_CHECKING:
    from sdcompress.schema.report import FilePrediction

__all__ = ["predict"]


def predict(
    folder: Annotated[Path, typer.Argument(help="an artifact, a checkpoint, or the folder of a training run")],
    files: Annotated[list[Path], typer.Argument(help="files of raw examples, and folders of them")],
    top: Annotated[int, typer.Option("--top", min=1, help="number of classes for each file")] = 1,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="folder for PNG files of the masks, for segmentation")
    ] = None,
    threads: Threads = None,
    backend: AnyBackend = None,
    device: Device = None,
    allow_uncertified: AllowUncertified = False,
    trust_modules: TrustModules = False,
    csv_: Annotated[bool, typer.Option("--csv", help="print CSV on stdout")] = False,
    json: Json = False,
) -> None:
    """Predict files, one at a time: the decision of the task, exit, and milliseconds.

    A file that cannot be read does not stop the others; the exit code is then 2.

    Example: sdcompress predict artifacts/early-exit photos --csv > predictions.csv
    """
    from sdcompress.options import Options

    check_one("--csv", "--json", both=csv_ and json)
    with bar("predict") as progress:
        predictions = sdcompress.predict(
            folder,
            files,
            Options(
                backend=backend,
                threads=threads or 1,
                device=device,
                allow_uncertified=allow_uncertified,
                trust_modules=trust_modules,
                progress=progress,
            ),
            top=top,
            pictures=pictures,
        )
    if json:
        write_json([prediction.model_dump(mode="json") for prediction in predictions])
    elif csv_:
        _write_csv(predictions)
    else:
        _show(predictions)
    if any(prediction.error is not None for prediction in predictions):
        raise typer.Exit(UsageError.exit_code)


def _show(predictions: Sequence[FilePrediction]) -> None:
    """Print a row for each file, then the mean times."""
    rows = []
    for one in predictions:
        stated = ", ".join(f"{each.name} {_value(each.value, one.unit)}" for each in one.stated) or "none"
        rows.append([one.file, one.error or stated, one.exit or "-", _ms(one.prepare_ms), _ms(one.run_ms)])
    kind, _ = _words(predictions)
    table(["file", kind, "exit", "prepare ms", "run ms"], rows)
    whole = [one for one in predictions if one.run_ms is not None and one.prepare_ms is not None]
    if whole:
        prepare, run = (
            sum(times) / len(whole)
            for times in zip(*((one.prepare_ms or 0.0, one.run_ms or 0.0) for one in whole), strict=True)
        )
        say(f"{len(whole)} examples, mean {prepare:.3f} ms to prepare and {run:.3f} ms to run")


def _write_csv(predictions: Sequence[FilePrediction]) -> None:
    """Write CSV with a header (RFC 4180): two columns for each class or label that is named."""
    most = max((len(one.stated) for one in predictions), default=0)
    numbers = [""] if most <= 1 else [f"_{position}" for position in range(1, most + 1)]
    writer = csv.writer(sys.stdout)
    text = printable if sys.stdout.isatty() else str  # a terminal must not get control characters
    pairs = [name + number for number in numbers for name in _words(predictions)]
    writer.writerow(["file", *pairs, "exit", "prepare_ms", "run_ms", "error"])
    for one in predictions:
        stated = [cell for each in one.stated for cell in (text(each.name), f"{each.value:.6f}")]
        stated += [""] * (len(pairs) - len(stated))
        writer.writerow(
            [text(one.file), *stated, one.exit, _ms(one.prepare_ms), _ms(one.run_ms), text(one.error or "")]
        )


def _words(predictions: Sequence[FilePrediction]) -> tuple[str, str]:
    """Return the titles of names and values, from the first file that has a prediction."""
    return next(((one.kind, one.unit) for one in predictions if one.error is None), ("output", "value"))


def _value(value: float, unit: str) -> str:
    return f"{value:.1%}" if unit in {"probability", "share"} else f"{value:.6g}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
