"""calibrate: choose the thresholds of a cascade, or plan how many samples a certificate needs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import sdcompress
from sdcompress.cli.console import bar, percent, say, table, write_json
from sdcompress.cli.options import (
    Backend,
    DataDir,
    Device,
    Json,
    Overwrite,
    Threads,
    complete_from,
    in_data_dir,
    milliseconds,
    share,
)
from sdcompress.errors import UsageError

if TYPE_CHECKING:
    from sdcompress.schema.manifest import Manifest
    from sdcompress.schema.report import SampleSizePlan

__all__ = ["calibrate"]

Cascade = Annotated[Path, typer.Argument(help="folder of an artifact")]
MaxDrop = Annotated[
    str | None, typer.Option("--max-drop", help="largest drop of the metric, e.g. 1% or 0.01; default: the recipe's")
]
PolicyKind = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="one of 'sdcompress list policies'; default: the recipe's, max_prob",
        autocompletion=complete_from("sdcompress.policies"),
    ),
]
Confidence = Annotated[
    str | None,
    typer.Option(
        "--confidence", help="certify that drop for new samples, e.g. 95%; default: the recipe's, or no certificate"
    ),
]
ExtraDrops = Annotated[
    list[str] | None,
    typer.Option("--extra-drop", help="also certify this drop, e.g. 0.5%; repeatable; all hold together"),
]
Unlabelled = Annotated[
    bool, typer.Option("--unlabelled", help="certify disagreement with the last exit, without labels")
]
OwnSamples = Annotated[
    Path | None,
    typer.Option("--samples", help="with --unlabelled: a folder of your own samples instead of the validation split"),
]
InExpectation = Annotated[
    bool,
    typer.Option("--in-expectation", help="instead of --confidence: bound the expected drop, without a certificate"),
]
GroupBy = Annotated[
    Literal["exit", "stratum"] | None,
    typer.Option(
        "--group-by", help="the drop holds in every group: each stratum (class), or what exits up to each exit"
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option("--reference", help="count the drop from this artifact's last exit, e.g. the one before quantising"),
]
Budget = Annotated[
    str | None,
    typer.Option("--budget", help="mean time, e.g. 3ms: take the safest certified thresholds within it"),
]


def calibrate(
    artifact: Cascade,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder to write; not with --plan")] = None,
    policy: PolicyKind = None,
    max_drop: MaxDrop = None,
    confidence: Confidence = None,
    extra_drop: ExtraDrops = None,
    unlabelled: Unlabelled = False,
    samples: OwnSamples = None,
    in_expectation: InExpectation = False,
    group_by: GroupBy = None,
    budget: Budget = None,
    reference: Reference = None,
    plan: Annotated[bool, typer.Option("--plan", help="only print how many samples a certificate needs")] = False,
    data_dir: DataDir = None,
    threads: Threads = None,
    backend: Backend = None,
    device: Device = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Choose the thresholds of a cascade on the validation split, and write a new artifact with the policy.

    With --confidence the drop is certified for new samples like these; if that fails, early exit is disabled.
    Thresholds hold for one execution target: calibrate with the --backend and --device that will run them.

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
        _plan(artifact, settings, engine, samples, json=json)
        return
    if out is None:
        raise UsageError("No folder to write is given.", allowed="--out FOLDER", next_step="add --out, or --plan")
    from sdcompress.cli.inspect import show_manifest
    from sdcompress.options import Options

    with bar("calibrate", timed=True) as progress:
        manifest = sdcompress.calibrate(
            artifact,
            out,
            settings,
            Options(**engine, progress=progress),
            samples=samples,
            reference=reference,
            overwrite=overwrite,
        )
    if json:
        write_json({"artifact": str(out), **manifest.model_dump(mode="json")})
        return
    show_manifest(manifest, str(out))
    if merge := _merging(manifest, out, data_dir):
        say(f"next, where samples come one at a time: {merge}")


def _merging(manifest: Manifest, out: Path, data_dir: Path | None) -> str:
    """Return the command that merges a cascade to one graph; empty where no sample exits early, or elsewhere."""
    policy = manifest.policy
    if manifest.layout != "cascade" or policy is None or not policy.exits_early:
        return ""
    if (policy.backend, policy.device) != ("onnxruntime", "cpu"):
        return ""
    return f"sdcompress export {shlex.quote(str(out))} --layout if --out FOLDER{in_data_dir(data_dir)}"


def _refuse_with_plan(overrides: dict[str, Any]) -> None:
    if flags := [f"--{name.replace('_', '-')}" for name, value in overrides.items() if value]:
        raise UsageError(
            f"--plan writes nothing and is about certificates, so {', '.join(flags)} cannot be given.",
            allowed="--plan with --max-drop, --confidence, --extra-drop, --unlabelled and the like",
            next_step=f"leave {' and '.join(flags)} out, or leave --plan out",
        )


def _plan(
    artifact: Path, settings: dict[str, Any], engine: dict[str, Any], samples: Path | None, *, json: bool
) -> None:
    from sdcompress.options import Options

    with bar("plan") as progress:
        planned = sdcompress.plan(artifact, settings, Options(**engine, progress=progress), samples=samples)
    if json:
        write_json(planned.model_dump(mode="json"))
    else:
        _show_plan(planned)


def _show_plan(planned: SampleSizePlan) -> None:
    """Print the samples that a certificate needs at each speed."""
    from sdcompress.cli.inspect import in_every

    title = (
        f"samples that certify at most {planned.max_drop:.2%} {planned.loss}{in_every(planned.group_by)} at "
        f"{planned.confidence:.4g} confidence"
    )
    rows = [
        [
            "assumed" if row.mean_ms is None else f"observed at {row.mean_ms:.3f} ms",
            percent(row.mean_loss),
            percent(row.mean_gain),
            "out of reach" if row.samples_needed is None else f"{row.samples_needed:,}",
        ]
        for row in (*planned.assumed, *planned.observed)
    ]
    table(["thresholds", "mean loss", "mean gain", "samples needed"], rows, title)
    say(
        f"{planned.source}: there are {planned.samples:,} samples for calibration; "
        f"fewer than {planned.minimum_samples:,} are refused. With the number needed, about {planned.power:.0%} "
        f"of calibrations get the certificate. Observed on the "
        f"{planned.tuning_samples:,} samples that tune the thresholds and certify nothing."
        + (f" The smallest {planned.group_by} is {planned.smallest_stratum}." if planned.smallest_stratum else "")
    )
