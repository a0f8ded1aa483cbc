"""export: to ONNX, or to TensorRT engines of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sdcompress.cli import engine_options as trt
from sdcompress.cli.options import DataDir, FreeThreads, Json, Out, Overwrite, TrustModules, threads_or_default
from sdcompress.cli.screen import bar, say, write_json
from sdcompress.schema import graphs
from sdcompress.schema.manifest import Manifest

__all__ = ["VERBS"]


Source = Annotated[
    Path, typer.Argument(help="a checkpoint or training run; graph and if: a calibrated cascade; trt: an artifact")
]
Layout = Annotated[
    graphs.Layout | None,
    typer.Option(
        "--layout",
        help="single: one exit; cascade: early exit, the default; all: every exit's logits; graph: one file that exits "
        "by itself; if: the same for a batch of one",
    ),
]
ExitName = Annotated[
    str | None, typer.Option("--exit", help="single: the exit to keep, the others are pruned; default: the last")
]
Format = Annotated[
    Literal["onnx", "trt"],
    typer.Option("--format", help="onnx; trt: also TensorRT engines for the GPU here"),
]
Opset = Annotated[int | None, typer.Option("--opset", help="ONNX opset, 16 to 23; default: the recipe's")]
KeptExits = Annotated[
    list[str] | None,
    typer.Option(
        "--exits",
        help="cascade, all: an exit to keep beside the last; repeatable; the others are pruned and their segments "
        "joined; default: the recipe's, or all",
    ),
]
Ensemble = Annotated[
    graphs.Ensemble | None,
    typer.Option("--ensemble", help="exits hear those kept before them: mean of log softmax; default: the recipe's"),
]


def export(
    source: Source,
    out: Out,
    layout: Layout = None,
    exit_: ExitName = None,
    exits: KeptExits = None,
    format_: Format = "onnx",
    opset: Opset = None,
    ensemble: Ensemble = None,
    batch: trt.Batch = None,
    min_shapes: trt.MinShapes = None,
    opt_shapes: trt.OptShapes = None,
    max_shapes: trt.MaxShapes = None,
    workspace: trt.Workspace = None,
    level: trt.Level = None,
    no_tf32: trt.NoTf32 = False,
    timing_cache: trt.TimingCache = None,
    version_compatible: trt.VersionCompatible = False,
    hardware_compatible: trt.HardwareCompatible = None,
    validation_images: trt.ValidationImages = None,
    max_drop: trt.MaxDrop = None,
    against: trt.Against = None,
    data_dir: DataDir = None,
    threads: FreeThreads = None,
    trust_modules: TrustModules = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Export a checkpoint to ONNX and prove the file against it on real images (exit code 4 if it differs).

    With --layout graph or if, a calibrated cascade; refused (exit code 4) where leaving early is not faster. With
    --format trt, TensorRT engines beside the graphs, proven likewise; the options that begin with trt are for it.

    Example: sdcompress export runs/digits/train/byot --layout single --exit exit2 --out artifacts/small
    """
    from sdcompress import api
    from sdcompress.artifact.read import MANIFEST

    given = trt.Given(
        *(batch, min_shapes, opt_shapes, max_shapes, workspace, level),
        *(no_tf32, timing_cache, version_compatible, hardware_compatible),
        *(validation_images, max_drop, against),
    )
    made = (source / MANIFEST).exists() or layout in ("graph", "if")  # of an artifact: there is no network to run
    with bar("export") as progress:
        manifest = api.export(
            source, out, format=format_, layout=layout, exit=exit_, exits=exits or None, opset=opset, ensemble=ensemble,
            build=trt.build_settings(given, source), trust_modules=trust_modules, data_dir=data_dir,
            threads=threads if made else threads_or_default(threads), overwrite=overwrite, progress=progress,
        )  # fmt: skip
    if json:
        write_json({"artifact": str(out), **manifest.model_dump(mode="json")})
    else:
        _show(manifest, out, engines=format_ == "trt")


def _show(manifest: Manifest, out: Path, *, engines: bool) -> None:
    from sdcompress.cli.tables import show_manifest

    show_manifest(manifest, str(out))
    say("", "run it:", "")
    if manifest.one_graph:
        say(f'  session = onnxruntime.InferenceSession("{out / manifest.one_graph.file}")')
        say("  logits, answer, exit_index = session.run(None, {session.get_inputs()[0].name: x})", "", "or", "")
    backend = ', backend="tensorrt", device="cuda"' if engines else ""
    say("  import sdcompress", f'  engine = sdcompress.open("{out}"{backend})')
    say("  prediction = engine(engine.preprocess([image]))  # image: Pillow, or uint8 [H, W, C]")


VERBS = (export,)
