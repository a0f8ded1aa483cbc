"""export: export a checkpoint to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import sdcompress
from sdcompress.cli.console import bar, say, write_json
from sdcompress.cli.options import (
    DataDir,
    FreeThreads,
    Json,
    Out,
    Overwrite,
    TrustModules,
    check_one,
    threads_or_default,
)

if TYPE_CHECKING:
    from sdcompress.schema.manifest import Manifest

__all__ = ["export", "show_use"]

Source = Annotated[Path, typer.Argument(help="a checkpoint or training run; graph and if: a calibrated cascade")]
Layout = Annotated[
    Literal["single", "cascade", "all", "graph", "if"],
    typer.Option(
        "--layout",
        help="single: one exit; cascade: early exit; all: the outputs of every exit; graph: one file that exits "
        "by itself; if: the same for a batch of one",
    ),
]
TruncateAt = Annotated[
    str | None,
    typer.Option("--truncate-at", help="the exit that the network ends at, also that of a cascade; default: the last"),
]
Opset = Annotated[int | None, typer.Option("--opset", help="ONNX opset, 16 to 23; default: the recipe's")]
KeepExits = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-exits",
        help="cascade, all: an exit to keep beside the last; repeatable; the heads of others are removed "
        "and their segments joined; default: the recipe's, or all",
    ),
]
Ensemble = Annotated[
    Literal["geometric"] | None,
    typer.Option("--ensemble", help="average each exit with earlier ones: mean of log softmax; default: the recipe's"),
]
NoEnsemble = Annotated[bool, typer.Option("--no-ensemble", help="exits by themselves, also where the recipe averages")]


def export(
    source: Source,
    out: Out,
    layout: Layout = "cascade",
    truncate_at: TruncateAt = None,
    keep_exits: KeepExits = None,
    opset: Opset = None,
    ensemble: Ensemble = None,
    no_ensemble: NoEnsemble = False,
    data_dir: DataDir = None,
    threads: FreeThreads = None,
    trust_modules: TrustModules = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Export a checkpoint to ONNX and compare the file with it on real samples (exit code 4 if it differs).

    With --layout graph or if, a calibrated cascade; refused (exit code 4) if early exit is not faster.

    Example: sdcompress export runs/digits/train/byot --layout single --truncate-at exit2 --out artifacts/small
    """
    from sdcompress.artifact.read import MANIFEST
    from sdcompress.options import Options

    check_one("--ensemble", "--no-ensemble", both=ensemble is not None and no_ensemble)
    overrides = {"keep_exits": keep_exits or None, "opset": opset, "ensemble": ensemble}
    settings: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    settings |= {"ensemble": None} if no_ensemble else {}
    of_artifact = (source / MANIFEST).exists() or layout in ("graph", "if")  # no torch network runs
    threads = threads if of_artifact else threads_or_default(threads)
    with bar("export") as progress:
        manifest = sdcompress.export(
            source,
            out,
            settings or None,
            Options(threads=threads, data_dir=data_dir, trust_modules=trust_modules, progress=progress),
            layout=layout,
            truncate_at=truncate_at,
            overwrite=overwrite,
        )
    if json:
        write_json({"artifact": str(out), **manifest.model_dump(mode="json")})
    else:
        show_use(manifest, out)


def show_use(manifest: Manifest, out: Path, *, engines: bool = False) -> None:
    """Print a summary of an artifact, and the lines that run it."""
    from sdcompress.cli.inspect import show_manifest

    show_manifest(manifest, str(out))
    say("", "run it:", "")
    if manifest.one_graph:
        feed = ", ".join(f'"{tensor.name}": {tensor.name}' for tensor in manifest.one_graph.inputs)
        say(f'  session = onnxruntime.InferenceSession("{out / manifest.one_graph.file}")')
        say(f"  outputs, decision, exit_index = session.run(None, {{{feed}}})", "", "or", "")
    backend = ', backend="tensorrt", device="cuda"' if engines else ""
    say("  import sdcompress", f'  engine = sdcompress.open("{out}"{backend})')
    say("  prediction = engine(engine.preprocess([raw_example]))  # a text, an image file, a row {column: value}")
