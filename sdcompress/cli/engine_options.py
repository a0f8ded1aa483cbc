"""The options of ``export --format trt``, and how they become settings of a build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from sdcompress.cli.options import share

if TYPE_CHECKING:
    from sdcompress.schema.engines import BatchProfile
    from sdcompress.tensorrt.building.settings import BuildSettings

__all__ = [
    "Against",
    "Batch",
    "Given",
    "HardwareCompatible",
    "Level",
    "MaxDrop",
    "MaxShapes",
    "MinShapes",
    "NoTf32",
    "OptShapes",
    "TimingCache",
    "ValidationImages",
    "VersionCompatible",
    "Workspace",
    "build_settings",
]

Hardware = Literal["ampere+", "same_compute_capability"]

Batch = Annotated[
    str | None,
    typer.Option("--batch", help="trt: min:opt:max, one for each bucket, e.g. 1:1:1,2:4:8,9:16:32; default 1:8:32"),
]
MinShapes = Annotated[
    str | None, typer.Option("--min-shapes", help="trt: instead of --batch, as trtexec has it: input:1x3x32x32")
]
OptShapes = Annotated[str | None, typer.Option("--opt-shapes", help="trt: likewise; alone: the only batch")]
MaxShapes = Annotated[str | None, typer.Option("--max-shapes", help="trt: likewise")]
Workspace = Annotated[
    str | None, typer.Option("--workspace", help="trt: memory that a kernel may use, e.g. 512MiB; default 2GiB")
]
Level = Annotated[
    int | None, typer.Option("--level", min=0, max=5, help="trt: 0 builds fast, 5 searches long; default: TensorRT's")
]
NoTf32 = Annotated[bool, typer.Option("--no-tf32", help="trt: FP32 layers in full FP32, without TF32 tensor cores")]
TimingCache = Annotated[
    Path | None,
    typer.Option("--timing-cache", help="trt: file of measurements; default: in the user's cache folder"),
]
VersionCompatible = Annotated[
    bool, typer.Option("--version-compatible", help="trt: later TensorRT versions load it too; may be slower")
]
HardwareCompatible = Annotated[
    Hardware | None, typer.Option("--hardware-compatible", help="trt: other GPUs run it too; may be slower")
]
ValidationImages = Annotated[
    int | None,
    typer.Option(
        "--validation-images", min=0, help="trt: held against the graphs on so many, 0 for none; default: 2000 at most"
    ),
]
MaxDrop = Annotated[
    str | None, typer.Option("--max-drop", help="trt: accuracy that an exit or the policy may lose on them; default 1%")
]
Against = Annotated[
    list[Path] | None,
    typer.Option("--against", help="trt: an artifact in another precision with engines, timed beside; repeatable"),
]


class Given(NamedTuple):
    """What was typed."""

    batch: str | None
    min_shapes: str | None
    opt_shapes: str | None
    max_shapes: str | None
    workspace: str | None
    level: int | None
    no_tf32: bool
    timing_cache: Path | None
    version_compatible: bool
    hardware_compatible: Hardware | None
    validation_images: int | None
    max_drop: str | None
    against: list[Path] | None


def build_settings(given: Given, source: Path) -> BuildSettings | None:
    """The settings; None if none of the options was given.

    Args:
        given: what was typed.
        source: the artifact, or the checkpoint, whose input the shapes are of.

    Raises:
        UsageError: if an option cannot be read.
    """
    if all(value is None or value is False or value == [] for value in given):  # 0 is a level
        return None
    from sdcompress.tensorrt.building.profiles import parse_bytes
    from sdcompress.tensorrt.building.settings import BuildSettings

    default = BuildSettings()
    return BuildSettings(
        profiles=_profiles(given, source) or default.profiles,
        workspace_bytes=parse_bytes(given.workspace, "--workspace") if given.workspace else default.workspace_bytes,
        level=given.level,
        tf32=not given.no_tf32,
        version_compatible=given.version_compatible,
        hardware_compatibility=_HARDWARE[given.hardware_compatible],
        timing_cache=given.timing_cache,
        validation_images=default.validation_images if given.validation_images is None else given.validation_images,
        max_drop=default.max_drop if given.max_drop is None else share(given.max_drop, "--max-drop"),
        against=tuple(given.against or ()),
    )


_HARDWARE: dict[Hardware | None, Literal["none", "ampere_plus", "same_compute_capability"]] = {
    None: "none",
    "ampere+": "ampere_plus",
    "same_compute_capability": "same_compute_capability",
}


def _profiles(given: Given, source: Path) -> tuple[BatchProfile, ...] | None:
    from sdcompress.artifact.read import MANIFEST, open_artifact
    from sdcompress.checkpoint import open_checkpoint
    from sdcompress.errors import UsageError
    from sdcompress.schema.graphs import Tensor
    from sdcompress.tensorrt.building.profiles import parse_batch, parse_shapes

    if not (given.min_shapes or given.opt_shapes or given.max_shapes):
        return parse_batch(given.batch) if given.batch is not None else None
    if given.batch is not None:
        raise UsageError(
            "--batch and shapes are given together.", allowed="one of them", next_step="leave the shapes out"
        )
    if (source / MANIFEST).exists():
        network_input: Tensor = open_artifact(source).manifest.inputs[0]
    else:
        network_input = Tensor(name="input", dtype="float32", shape=("batch", *open_checkpoint(source).image))
    return parse_shapes(network_input, smallest=given.min_shapes, opt=given.opt_shapes, largest=given.max_shapes)
