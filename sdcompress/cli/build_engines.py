"""build-engines: build TensorRT engines for this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import sdcompress
from sdcompress.cli.console import bar, say, table, write_json
from sdcompress.cli.options import DataDir, Json, Out, Overwrite, share

if TYPE_CHECKING:
    from sdcompress.schema.engines import BatchProfile, Engines, SpeedComparison, Validation
    from sdcompress.schema.manifest import Manifest

__all__ = ["build_engines", "show_engines"]

Hardware = Literal["ampere+", "same_compute_capability"]

Batch = Annotated[
    str | None,
    typer.Option("--batch", help="min:opt:max, one for each bucket, e.g. 1:1:1,2:4:8,9:16:32; default 1:8:32"),
]
MinShapes = Annotated[
    str | None, typer.Option("--min-shapes", help="instead of --batch, in the format of trtexec: input:1x3x32x32")
]
OptShapes = Annotated[str | None, typer.Option("--opt-shapes", help="likewise; alone: the only batch")]
MaxShapes = Annotated[str | None, typer.Option("--max-shapes", help="likewise")]
Workspace = Annotated[
    str | None, typer.Option("--workspace", help="memory that a kernel may use, e.g. 512MiB; default 2GiB")
]
Level = Annotated[
    int | None, typer.Option("--level", min=0, max=5, help="0 builds fast, 5 searches long; default: TensorRT's")
]
NoTf32 = Annotated[bool, typer.Option("--no-tf32", help="FP32 layers in full FP32, without TF32 tensor cores")]
TimingCache = Annotated[
    Path | None,
    typer.Option("--timing-cache", help="file of kernel timings; default: in the user's cache folder"),
]
VersionCompatible = Annotated[
    bool, typer.Option("--version-compatible", help="later TensorRT versions load it too; may be slower")
]
HardwareCompatible = Annotated[
    Hardware | None, typer.Option("--hardware-compatible", help="other GPUs run it too; may be slower")
]
ValidationSamples = Annotated[
    int | None,
    typer.Option(
        "--validation-samples",
        min=0,
        help="number of validation samples for the comparison with the graphs; default: up to 2000",
    ),
]
MaxDrop = Annotated[
    str | None,
    typer.Option("--max-drop", help="largest drop of the metric on them, of every exit and of the policy; default 1%"),
]
Against = Annotated[
    list[Path] | None,
    typer.Option(
        "--against", help="an artifact with engines in another precision, timed in the same rounds; repeatable"
    ),
]
_HARDWARE: dict[Hardware | None, Literal["none", "ampere_plus", "same_compute_capability"]] = {
    None: "none",
    "ampere+": "ampere_plus",
    "same_compute_capability": "same_compute_capability",
}


def build_engines(
    artifact: Annotated[Path, typer.Argument(help="folder of an artifact")],
    out: Out,
    batch: Batch = None,
    min_shapes: MinShapes = None,
    opt_shapes: OptShapes = None,
    max_shapes: MaxShapes = None,
    workspace: Workspace = None,
    level: Level = None,
    no_tf32: NoTf32 = False,
    timing_cache: TimingCache = None,
    version_compatible: VersionCompatible = False,
    hardware_compatible: HardwareCompatible = None,
    validation_samples: ValidationSamples = None,
    max_drop: MaxDrop = None,
    against: Against = None,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Build TensorRT engines of an artifact for this GPU, and compare them with its graphs.

    The exit code is 4 if they differ.

    Example: sdcompress build-engines artifacts/early-exit --out artifacts/early-exit --overwrite
    """
    from sdcompress.cli.export import show_use
    from sdcompress.evaluation.trained_model import open_trained_model
    from sdcompress.options import Options
    from sdcompress.tensorrt.building.profiles import parse_bytes
    from sdcompress.tensorrt.building.settings import BuildSettings

    opened = open_trained_model(artifact, Options(data_dir=data_dir))
    overrides: dict[str, Any] = {
        "profiles": _profiles(opened.artifact().manifest, batch, min_shapes, opt_shapes, max_shapes),
        "workspace_bytes": parse_bytes(workspace, "--workspace") if workspace else None,
        "level": level,
        "tf32": False if no_tf32 else None,
        "timing_cache": timing_cache,
        "version_compatible": version_compatible or None,
        "hardware_compatibility": hardware_compatible and _HARDWARE[hardware_compatible],
        "validation_samples": validation_samples,
        "max_drop": None if max_drop is None else share(max_drop, "--max-drop"),
        "against": tuple(against) if against else None,
    }
    settings = BuildSettings(**{name: value for name, value in overrides.items() if value is not None})
    with bar("build engines") as progress:
        options = Options(data_dir=data_dir, progress=progress)
        manifest = sdcompress.build_engines(opened, out, settings, options, overwrite=overwrite)
    if json:
        write_json({"artifact": str(out), **manifest.model_dump(mode="json")})
    else:
        show_use(manifest, out, engines=True)


def _profiles(
    manifest: Manifest, batch: str | None, smallest: str | None, opt: str | None, largest: str | None
) -> tuple[BatchProfile, ...] | None:
    from sdcompress.errors import UsageError
    from sdcompress.tensorrt.building.profiles import parse_batch, parse_shapes

    if not (smallest or opt or largest):
        return parse_batch(batch) if batch is not None else None
    if batch is not None:
        raise UsageError(
            "--batch and shapes are given together.", allowed="one of them", next_step="leave the shapes out"
        )
    return parse_shapes(manifest.inputs[0], smallest=smallest, opt=opt, largest=largest)


def show_engines(built: Engines, precision: str) -> None:
    """Print the plans for one machine, their difference from the graphs, and which precision is faster.

    Args:
        built: engines.
        precision: of the graphs that they were built from.
    """
    compatible = [] if built.hardware_compatibility == "none" else [f"other GPUs: {built.hardware_compatibility}"]
    compatible += ["later versions"] if built.version_compatible else []
    rows = [
        [
            plan.file,
            f"{plan.bytes / 2**20:.2f}",
            f"{plan.device_memory_bytes / 2**20:.2f}",
            ", ".join(f"{number} {kind}" for kind, number in plan.layers.items()),
        ]
        for plan in built.plans
    ]
    title = f"TensorRT {built.tensorrt} for {built.gpu} ({built.compute_capability})"
    table(["plan", "MiB", "scratch MiB", "layers"], rows, title)
    worst = max((record.max_abs_diff / record.tolerance for record in built.parity), default=None)
    level = "default" if built.builder_optimization_level is None else built.builder_optimization_level
    say(
        f"batches {', '.join(f'{each.min}:{each.opt}:{each.max}' for each in built.profiles)}; TF32 "
        f"{'on' if built.tf32 else 'off'}; level {level}"
        + (f"; also for {' and '.join(compatible)}" if compatible else "")
        + ("" if worst is None else f"; outputs within {worst:.0%} of the tolerance on the golden samples")
    )
    if built.validation:
        _show_validation(built.validation)
    else:
        say("not compared on validation samples")
    for time in built.speed_comparisons:
        say(_speed_text(time, precision))


def _show_validation(comparison: Validation) -> None:
    rows = [
        [
            each.name,
            f"{each.metric_before:.2%}",
            f"{each.metric_after:.2%}",
            each.changes_text,
            f"{each.max_abs_diff:.2g}",
        ]
        for each in comparison.exits
    ]
    columns = ["exit", "graphs", "engines", "other decisions", "largest difference of an output"]
    table(columns, rows, f"on {comparison.samples} validation samples (at most {comparison.max_drop:.2%} may be lost)")
    if policy := comparison.policy:
        say(
            f"by the policy: {policy.metric_before:.2%} by the graphs, {policy.metric_after:.2%} by the engines; "
            f"{policy.exit_changes} samples take another exit; other decisions: {policy.changes_text}"
        )


def _speed_text(time: SpeedComparison, precision: str) -> str:
    verdict = (
        f"{precision} is {time.verdict} here than" if time.verdict != "no difference" else f"{precision} is as fast as"
    )
    return (
        f"{verdict} {time.precision} ({time.digest[:12]}): {time.ms:.3f} ms against {time.other_ms:.3f} ms at batch "
        f"{time.batch}, {time.speedup:.2f}x [{time.low:.2f}, {time.high:.2f}]"
    )
