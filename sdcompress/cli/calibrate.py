"""calibrate: the thresholds of a cascade, and how many images a certificate for them takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import sdcompress
from sdcompress.cli.completion import complete_from
from sdcompress.cli.console import bar, percent, say, table, write_json
from sdcompress.cli.options import Backend, DataDir, Device, Json, Overwrite, Threads, milliseconds, share
from sdcompress.errors import UsageError

if TYPE_CHECKING:
    from sdcompress.schema.report import Plan

__all__ = ["calibrate"]

Cascade = Annotated[Path, typer.Argument(help="folder of an artifact")]
MaxDrop = Annotated[
    str | None, typer.Option("--max-drop", help="accuracy that may be lost, e.g. 1% or 0.01; default: the recipe's")
]
PolicyKind = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="of 'sdcompress list policies'; default: the recipe's, max_prob",
        autocompletion=complete_from("sdcompress.policies"),
    ),
]
Confidence = Annotated[
    str | None,
    typer.Option("--confidence", help="certify that drop for new images, e.g. 95%; default: the recipe's, or not"),
]
ExtraDrops = Annotated[
    list[str] | None,
    typer.Option("--extra-drop", help="certify this drop too, e.g. 0.5%; repeatable; all hold together"),
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
GroupBy = Annotated[
    Literal["exit", "stratum"] | None,
    typer.Option("--group-by", help="the drop holds in every group: samples of one exit, or of one stratum (class)"),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        "--reference", help="certify the drop against this artifact's last exit, e.g. the one before quantising"
    ),
]
Budget = Annotated[
    str | None, typer.Option("--budget", help="mean time: the safest certified thresholds that keep it, e.g. 3ms")
]


def calibrate(
    artifact: Cascade,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder to write; not with --plan")] = None,
    policy: PolicyKind = None,
    max_drop: MaxDrop = None,
    confidence: Confidence = None,
    extra_drop: ExtraDrops = None,
    unlabelled: Unlabelled = False,
    images: OwnImages = None,
    in_expectation: InExpectation = False,
    group_by: GroupBy = None,
    budget: Budget = None,
    reference: Reference = None,
    plan: Annotated[bool, typer.Option("--plan", help="only say how many images it takes; writes nothing")] = False,
    data_dir: DataDir = None,
    threads: Threads = None,
    backend: Backend = None,
    device: Device = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Choose the thresholds of a cascade on the validation split; writes a new artifact with the policy.

    With --confidence the drop is certified for new images like these; if that fails, early exit is disabled.
    Thresholds hold for what chose them: calibrate with the --backend and --device that will run them.

    Example: sdcompress calibrate artifacts/cascade --max-drop 1% --confidence 95% --out artifacts/early-exit
    """
    overrides: dict[str, Any] = {
        "policy": policy,
        "max_drop": None if max_drop is None else share(max_drop, "--max-drop"),
        "confidence": None if confidence is None else share(confidence, "--confidence", "95%"),
        "extra_drops": [share(drop, "--extra-drop") for drop in extra_drop] if extra_drop else None,
        "unlabelled": unlabelled or None,
        "group_by": group_by,
        "in_expectation": in_expectation or None,
        "budget_ms": None if budget is None else milliseconds(budget, "--budget"),
    }
    settings = {name: value for name, value in overrides.items() if value is not None}
    engine: dict[str, Any] = {"threads": threads, "backend": backend, "device": device, "data_dir": data_dir}
    if plan:
        unused = {"out": out, "budget": budget, "in_expectation": in_expectation, "reference": reference}
        _refuse_with_plan({**unused, "overwrite": overwrite})
        _plan(artifact, settings, engine, images, json=json)
        return
    if out is None:
        raise UsageError("No folder to write is given.", allowed="--out FOLDER", next_step="add --out, or --plan")
    from sdcompress.cli.inspect import show_manifest
    from sdcompress.options import Options

    with bar("calibrate") as progress:
        manifest = sdcompress.calibrate(
            artifact,
            out,
            settings,
            Options(**engine, progress=progress),
            images=images,
            reference=reference,
            overwrite=overwrite,
        )
    if json:
        write_json({"artifact": str(out), **manifest.model_dump(mode="json")})
    else:
        show_manifest(manifest, str(out))


def _refuse_with_plan(overrides: dict[str, Any]) -> None:
    if flags := [f"--{name.replace('_', '-')}" for name, value in overrides.items() if value]:
        raise UsageError(
            f"--plan writes nothing and is about certificates: {', '.join(flags)} cannot go with it.",
            allowed="--plan with what is to be certified: --max-drop, --confidence, --extra-drop, --unlabelled ...",
            next_step=f"leave {' and '.join(flags)} out, or leave --plan out",
        )


def _plan(artifact: Path, settings: dict[str, Any], engine: dict[str, Any], images: Path | None, *, json: bool) -> None:
    from sdcompress.options import Options

    with bar("plan") as progress:
        planned = sdcompress.plan(artifact, settings, Options(**engine, progress=progress), images=images)
    if json:
        write_json(planned.model_dump(mode="json"))
    else:
        _show_plan(planned)


def _show_plan(planned: Plan) -> None:
    """Print the samples that a certificate needs at each speed."""
    from sdcompress.cli.inspect import in_every

    title = (
        f"images that certify at most {planned.max_drop:.2%} {planned.loss}{in_every(planned.group_by)} at "
        f"{planned.confidence:.4g} confidence"
    )
    rows = [
        [
            "assumed" if row.mean_ms is None else f"seen at {row.mean_ms:.3f} ms",
            percent(row.lost),
            percent(row.gained),
            "out of reach" if row.needs is None else f"{row.needs:,}",
        ]
        for row in (*planned.assumed, *planned.observed)
    ]
    table(["thresholds", "lost", "gained", "images needed"], rows, title)
    say(
        f"{planned.source}: there are {planned.samples:,} images for calibration; "
        f"below {planned.least:,} it is refused. With the number needed, {planned.power:.0%} "
        f"of calibrations find the certificate. Seen on the "
        f"{planned.seen:,} images that tune the thresholds and certify nothing."
        + (f" The smallest {planned.group_by} is {planned.smallest}." if planned.smallest else "")
    )
