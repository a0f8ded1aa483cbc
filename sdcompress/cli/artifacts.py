"""export, verify and inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sdcompress.cli.options import DataDir, Json, Out, Overwrite, Threads
from sdcompress.cli.screen import bar, say, write_json
from sdcompress.schema.graphs import OneGraph

__all__ = ["VERBS"]

Artifact = Annotated[Path, typer.Argument(help="folder of an artifact")]

KeptExits = Annotated[
    list[str] | None,
    typer.Option(
        "--exits",
        help="cascade, all: an exit to keep beside the last; repeatable; the others are pruned and their segments "
        "joined; default: the recipe's, or all",
    ),
]
Ensemble = Annotated[
    Literal["geometric"] | None,
    typer.Option("--ensemble", help="exits hear those kept before them: mean of log softmax; default: the recipe's"),
]


def export(
    source: Annotated[
        Path, typer.Argument(help="a checkpoint or training run; for graph and if: a calibrated cascade")
    ],
    out: Out,
    layout: Annotated[
        Literal["single", "cascade", "all", "graph", "if"],
        typer.Option(
            "--layout",
            help="single: one exit; cascade: early exit; all: every exit's logits; graph: one file that exits by "
            "itself; if: the same for a batch of one",
        ),
    ] = "cascade",
    exit_: Annotated[
        str | None, typer.Option("--exit", help="single: the exit to keep, the others are pruned; default: the last")
    ] = None,
    exits: KeptExits = None,
    format_: Annotated[Literal["onnx"], typer.Option("--format", help="file format")] = "onnx",  # noqa: ARG001 - one today
    opset: Annotated[int | None, typer.Option("--opset", help="ONNX opset, 16 to 23; default: the recipe's")] = None,
    ensemble: Ensemble = None,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Export a checkpoint to ONNX and prove the file against it on real images (exit code 4 if it differs).

    With --layout graph or if, a calibrated cascade; refused (exit code 4) where leaving early is not faster.

    Example: sdcompress export runs/digits/train/byot --layout single --exit exit2 --out artifacts/small

    Example: sdcompress export runs/digits/train/byot --layout cascade --exits exit2 --opset 16 --out artifacts/two
    """
    from sdcompress import api
    from sdcompress.cli.tables import show_manifest

    with bar("export") as progress:
        manifest = api.export(
            source,
            out,
            layout=layout,
            exit=exit_,
            exits=exits or None,
            opset=opset,
            ensemble=ensemble,
            data_dir=data_dir,
            overwrite=overwrite,
            progress=progress,
        )
    if json:
        write_json({"artifact": str(out), **manifest.model_dump(mode="json")})
        return
    show_manifest(manifest, str(out))
    _say_how_to_run(out, manifest.one_graph)


def _say_how_to_run(out: Path, one_graph: OneGraph | None) -> None:
    say("\nrun it:\n")
    if one_graph:
        say(f'  session = onnxruntime.InferenceSession("{out / one_graph.file}")')
        say("  logits, answer, exit_index = session.run(None, {session.get_inputs()[0].name: x})\n\nor\n")
    say(f'  import sdcompress\n  engine = sdcompress.open("{out}")')
    say("  prediction = engine(engine.preprocess([image]))  # image: Pillow, or uint8 [H, W, C]")


def verify(artifact: Artifact, threads: Threads = 1, json: Json = False) -> None:
    """Prove an artifact on this machine, without torch: its files, and its logits on the golden samples.

    Example: sdcompress verify artifacts/early-exit
    """
    from sdcompress import api
    from sdcompress.cli.tables import show_verdicts

    found = api.verify(artifact, threads=threads)
    if json:
        write_json(found.model_dump(mode="json"))
    else:
        show_verdicts(found)


def inspect(artifact: Artifact, json: Json = False) -> None:
    """Show what an artifact is: exits, costs, policy, where it comes from.

    Example: sdcompress inspect artifacts/early-exit
    """
    from sdcompress.artifact.read import open_artifact
    from sdcompress.cli.tables import show_manifest

    manifest = open_artifact(artifact).manifest
    if json:
        write_json(manifest.model_dump(mode="json"))
    else:
        show_manifest(manifest, str(artifact))


VERBS = (export, verify, inspect)
