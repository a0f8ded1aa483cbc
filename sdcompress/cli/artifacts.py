"""export, calibrate, verify and inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sdcompress.cli.options import Backend, DataDir, Device, Json, Out, Overwrite, Threads, milliseconds, share
from sdcompress.cli.screen import bar, say, write_json
from sdcompress.errors import UsageError
from sdcompress.schema.graphs import OneGraph

__all__ = ["VERBS"]

Artifact = Annotated[Path, typer.Argument(help="folder of an artifact")]
MaxDrop = Annotated[
    str | None, typer.Option("--max-drop", help="accuracy that may be lost, e.g. 1% or 0.01; default: the recipe's")
]
PolicyKind = Annotated[
    str | None, typer.Option("--policy", help="of 'sdcompress list policies'; default: the recipe's, max_prob")
]
Confidence = Annotated[
    str | None,
    typer.Option("--confidence", help="certify that drop for new images, e.g. 95%; default: the recipe's, or not"),
]
Ladder = Annotated[
    list[str] | None, typer.Option("--ladder", help="certify this drop too, e.g. 0.5%; repeatable; all hold together")
]
Unlabelled = Annotated[
    bool, typer.Option("--unlabelled", help="certify disagreement with the last exit; no label is looked at")
]
OwnImages = Annotated[
    Path | None,
    typer.Option("--images", help="with --unlabelled: a folder of your own images instead of the validation split"),
]
InExpectation = Annotated[
    bool,
    typer.Option("--in-expectation", help="instead of --confidence: keep the drop in the mean, certify nothing"),
]
PerExit = Annotated[
    bool, typer.Option("--per-exit", help="the drop also holds for what has left by each exit, not only over all")
]
PerClass = Annotated[bool, typer.Option("--per-class", help="the drop holds for the images of every single class")]
Budget = Annotated[
    str | None, typer.Option("--budget", help="mean time: the safest certified thresholds that keep it, e.g. 3ms")
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
    format_: Annotated[Literal["onnx"], typer.Option("--format", help="file format")] = "onnx",  # noqa: ARG001 - one today
    opset: Annotated[int | None, typer.Option("--opset", help="ONNX opset; default: the recipe's")] = None,
    ensemble: Annotated[
        Literal["geometric"] | None,
        typer.Option("--ensemble", help="exits hear the exits before them: mean of log softmax; default: the recipe's"),
    ] = None,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Export a checkpoint to ONNX and prove the file against it on real images (exit code 4 if it differs).

    With --layout graph or if, a calibrated cascade; refused (exit code 4) where leaving early is not faster.

    Example: sdcompress export runs/digits/train/byot --layout single --exit exit2 --out artifacts/small
    """
    from sdcompress import api
    from sdcompress.cli.tables import show_manifest

    with bar("export") as progress:
        manifest = api.export(
            source,
            out,
            layout=layout,
            exit=exit_,
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


def calibrate(
    artifact: Artifact,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder to write; not with --plan")] = None,
    policy: PolicyKind = None,
    max_drop: MaxDrop = None,
    confidence: Confidence = None,
    ladder: Ladder = None,
    unlabelled: Unlabelled = False,
    images: OwnImages = None,
    in_expectation: InExpectation = False,
    per_exit: PerExit = False,
    per_class: PerClass = False,
    budget: Budget = None,
    plan: Annotated[bool, typer.Option("--plan", help="only say how many images it takes; writes nothing")] = False,
    data_dir: DataDir = None,
    threads: Threads = 1,
    backend: Backend = "onnxruntime",
    device: Device = "cpu",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Choose the thresholds of a cascade on the validation split; writes a new artifact with the policy.

    With --confidence the drop is certified for new images like these; where no thresholds are, nobody leaves early.
    Thresholds hold for what chose them: calibrate with the --backend and --device that will run them.

    Example: sdcompress calibrate artifacts/cascade --max-drop 1% --confidence 95% --out artifacts/early-exit
    """
    from sdcompress import api
    from sdcompress.cli.tables import show_manifest

    wish: dict[str, Any] = {
        "policy": policy,
        "max_drop": None if max_drop is None else share(max_drop, "--max-drop"),
        "confidence": None if confidence is None else share(confidence, "--confidence", "95%"),
        "ladder": [share(drop, "--ladder") for drop in ladder] if ladder else None,
        "unlabelled": unlabelled or None,
        "images": images,
        "per": _per(per_exit, per_class),
    }
    where: dict[str, Any] = {"data_dir": data_dir, "threads": threads, "backend": backend, "device": device}
    if plan:
        _refuse_with_plan(
            {"--out": out, "--budget": budget, "--in-expectation": in_expectation, "--overwrite": overwrite}
        )
        _plan(artifact, {**wish, **where}, json=json)
        return
    if out is None:
        raise UsageError("No folder to write is given.", allowed="--out FOLDER", next_step="add --out, or --plan")
    wish["in_expectation"] = in_expectation or None
    wish["budget_ms"] = None if budget is None else milliseconds(budget, "--budget")
    with bar("calibrate") as progress:
        manifest = api.calibrate(artifact, out, **wish, **where, overwrite=overwrite, progress=progress)
    if json:
        write_json({"artifact": str(out), **manifest.model_dump(mode="json")})
    else:
        show_manifest(manifest, str(out))


def _refuse_with_plan(options: dict[str, Any]) -> None:
    if given := [name for name, value in options.items() if value]:
        raise UsageError(
            f"--plan writes nothing and is about certificates: {', '.join(given)} cannot go with it.",
            allowed="--plan with the wish alone: --max-drop, --confidence, --ladder, --unlabelled, --per-class ...",
            next_step=f"leave {' and '.join(given)} out, or leave --plan out",
        )


def _plan(artifact: Path, wish: dict[str, Any], *, json: bool) -> None:
    from sdcompress import api
    from sdcompress.cli.tables import show_plan

    with bar("plan") as progress:
        planned = api.plan(artifact, **wish, progress=progress)
    if json:
        write_json(planned.model_dump(mode="json"))
    else:
        show_plan(planned)


def _per(exits: bool, classes: bool) -> str | None:
    if exits and classes:
        raise UsageError(
            "--per-exit and --per-class are given together.",
            allowed="one of them: each is a certificate of its own",
            next_step="choose the groups that matter",
        )
    return "exit" if exits else "class" if classes else None


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


VERBS = (export, calibrate, verify, inspect)
