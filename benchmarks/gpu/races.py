"""Engines against engines, in turns, host to host: precisions, what a build option costs, what distilling gains."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from place import NotMeasured, Place, engine, inputs_of, needs_tensorrt
from table import PRECISIONS

from sdcompress.artifact.read import open_artifact
from sdcompress.errors import SetupError, UsageError
from sdcompress.schema.engines import BatchProfile
from sdcompress.tensorrt.building.build import build_engines
from sdcompress.tensorrt.building.precision_comparison import Sibling, compare_speed
from sdcompress.tensorrt.building.settings import BuildSettings

# TF32 off, so that fp32 is fp32; the golden images' parity is enough for networks that were hardly trained
SETTINGS = BuildSettings(tf32=False, validation_samples=0)
EACH = (1, 2, 4, 8, 16, 32, 64)
FEW = (1, 64)


def build(place: Place, precision: str, layout: str) -> dict[str, Any]:
    """Engines of the single network or of the cascade, one profile for each batch that is measured."""
    needs_tensorrt()
    source = place.source(layout, precision)
    return {"build_s": built(source, place.out / "engines" / source.name, SETTINGS, EACH), "tf32": False}


def precisions(place: Place) -> dict[str, Any]:
    """Every precision of the single network against those before it: fp32, fp16, int8, fp8."""
    needs_tensorrt()
    there = {kind: path for kind in PRECISIONS if (path := place.out / "engines" / f"single-{kind}").exists()}
    if len(there) < 2:
        raise NotMeasured("engines of two precisions are needed: see the pieces build-single-P")
    earlier = list(there)
    return {
        kind: against(there[kind], {other: there[other] for other in earlier[:at]}, FEW)
        for at, kind in enumerate(earlier)
        if at > 0
    }


def options(place: Place, precision: str = "fp16") -> dict[str, Any]:
    """What plans for later versions, and for other GPUs, cost against plans for this machine alone."""
    needs_tensorrt()
    source, folder = place.source("single", precision), place.out / "options"
    found: dict[str, Any] = {"plain": {"build_s": built(source, folder / "plain", SETTINGS, FEW)}}
    ways = {
        "version-compatible": replace(SETTINGS, version_compatible=True),
        "ampere+": replace(SETTINGS, hardware_compatibility="ampere_plus"),
        "same_compute_capability": replace(SETTINGS, hardware_compatibility="same_compute_capability"),
    }
    for name, settings in ways.items():
        found[name] = price(source, folder, name, settings)
    return found


def price(source: Path, folder: Path, name: str, settings: BuildSettings) -> Any:
    """Of one option; why not, where this TensorRT does not have it, or cannot build with it."""
    try:
        seconds = built(source, folder / name, settings, FEW)
    except UsageError as error:
        return f"not measured: {error.problem}"
    except NotMeasured as reason:  # the other options are measured all the same
        return f"not measured: {reason}"
    return {"build_s": seconds, **against(folder / name, {"plain": folder / "plain"}, FEW)}


def distilled(place: Place, precision: str) -> dict[str, Any]:
    """Every exit of the self-distilled network, truncated at it, against the full network trained without exits."""
    needs_tensorrt()
    exits = sorted(place.artifacts.glob(f"distilled-*-{precision}"))
    whole = place.artifacts / f"undistilled-{precision}"
    if not exits or not whole.exists():
        raise NotMeasured("there are no trained networks: make_artifacts.py --distilled RUN --undistilled RUN")
    folder = place.out / "engines"
    for source in (whole, *exits):
        if not (folder / source.name).exists():  # a piece that ran out of time goes on
            built(source, folder / source.name, SETTINGS, FEW)
    least = accuracy(whole)
    found: dict[str, Any] = {"undistilled": {"validation accuracy": least}}
    for source in exits:
        name = source.name.removeprefix("distilled-").removesuffix(f"-{precision}")
        reached = accuracy(source)
        found[name] = {
            "validation accuracy": reached,
            "equal or better": reached >= least,
            **against(folder / source.name, {"undistilled": folder / whole.name}, FEW),
        }
    good = [name for name, one in found.items() if one.get("equal or better")]
    for rows in FEW:
        speeds = {name: found[name]["undistilled"][f"batch {rows}"] for name in good}
        best = max(speeds, key=lambda name: speeds[name]["speedup"], default=None)
        found[f"best, batch {rows}"] = {"exit": best, **speeds[best]} if best else {"speedup": "none is as good"}
    return found


def built(source: Path, out: Path, settings: BuildSettings, sizes: tuple[int, ...]) -> float:
    """Build engines with a profile for each batch; the seconds that it took."""
    each = tuple(BatchProfile(min=rows, opt=rows, max=rows) for rows in sizes)
    # profiles leave no batch out between them: what lies between two sizes belongs to the larger one
    rising = tuple(one.model_copy(update={"min": before.max + 1}) for before, one in pairwise(each))
    began = perf_counter_ns()
    try:
        build_engines(source, out, settings=replace(settings, profiles=(each[0], *rising)), overwrite=True)
    except SetupError as error:
        raise NotMeasured(error.problem) from error
    return round((perf_counter_ns() - began) / 1e9, 1)


def against(path: Path, others: dict[str, Path], batches: tuple[int, ...]) -> dict[str, Any]:
    """How many times as fast engines are as each of the others, by the other's name and the batch."""
    found: dict[str, Any] = {name: {} for name in others}
    speed_comparisons = [
        (Sibling(other, other.manifest.digest, name), engine(other.path))
        for name, other in ((name, open_artifact(path)) for name, path in others.items())
    ]
    artifact = open_artifact(path)
    inputs = artifact.modality.check(inputs_of(artifact))
    for time in compare_speed(engine(path), speed_comparisons, inputs, batches):
        found[time.precision][f"batch {time.batch}"] = time.model_dump(exclude={"digest", "precision", "batch"})
    return found


def accuracy(path: Path) -> float:
    """Of an artifact's last exit, on the validation split, by its graphs."""
    measured = open_artifact(path).manifest.exits[-1].metrics.get("accuracy")
    if measured is None:
        raise NotMeasured(f"'{path.name}' does not say its accuracy: export it where its data is")
    return measured
