"""Compare the speed of engines with those of the same network in other precisions, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdcompress.artifact.read import Artifact
from sdcompress.benchmarking.stats import ratio_of_means, verdict
from sdcompress.benchmarking.timed_calls import TimedCall, time_interleaved
from sdcompress.calibration.reference_model import open_comparable
from sdcompress.errors import UsageError
from sdcompress.modalities import Inputs
from sdcompress.progress import Progress, subprogress
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.on_device.buckets import buckets
from sdcompress.schema.engines import Engines, SpeedComparison
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.nvidia.compatible import choose_engines
from sdcompress.tensorrt.nvidia.gpu_query import Gpu

__all__ = ["Sibling", "compare_speed", "find_siblings", "tuned_batches"]

_ROUNDS, _SECONDS, _WARM_UP_MS = 10, 0.2, 200.0


@dataclass(frozen=True)
class Sibling:
    """An artifact of the same network in another precision.

    Attributes:
        artifact: opened.
        digest: its own.
        precision: of its graphs.
    """

    artifact: Artifact
    digest: str
    precision: str


def find_siblings(manifest: Manifest, settings: BuildSettings, *, tensorrt: str, gpu: Gpu) -> tuple[Sibling, ...]:
    """Check the artifacts to compare the speed with, before the minutes of a build.

    Args:
        manifest: of the artifact whose engines are to be built.
        settings: of the build; they name the others.
        tensorrt: version that is installed here.
        gpu: that is here.

    Raises:
        UsageError: if one has other classes, inputs or data, or differs in more than its precision.
        ArtifactError: if one is not intact.
        SetupError: if one has no engines that this machine can load.
    """
    siblings = []
    for path in settings.against:
        artifact = open_comparable(path, manifest)
        other = artifact.manifest
        built = choose_engines(other.engines, tensorrt=tensorrt, gpu=gpu, artifact=str(path))
        if problem := _difference(other, built, manifest, settings):
            raise UsageError(
                f"'{path}' {problem}: the comparison would not be between precisions.",
                allowed="an artifact of the same layout and exits, whose engines were built with the same options",
                next_step="build its engines with the options of this build, or leave it out",
            )
        siblings.append(Sibling(artifact, other.digest, " and ".join(other.precisions)))
    return tuple(siblings)


def tuned_batches(settings: BuildSettings) -> list[int]:
    """Return the batches that the profiles are tuned for, each once, rising."""
    return sorted({profile.opt for profile in settings.profiles})


def _difference(other: Manifest, built: Engines, manifest: Manifest, settings: BuildSettings) -> str:
    """How a sibling differs in more than its precision, as text; empty if nothing is known before a build."""
    names = [tuple(exit_.name for exit_ in artifact.exits) for artifact in (other, manifest)]
    if other.layout != manifest.layout or names[0] != names[1]:
        return f"is a {other.layout} with the exits {', '.join(names[0])}, this a {manifest.layout} with " + ", ".join(
            names[1]
        )
    for option in ("tf32", "version_compatible", "hardware_compatibility"):
        if getattr(built, option) != getattr(settings, option):
            return f"was built with {option} {getattr(built, option)}, these with {getattr(settings, option)}"
    missing = [batch for batch in tuned_batches(settings) if batch not in buckets(built.profiles).rows]
    return f"has no engines for a batch of exactly {missing[0]}" if missing else ""


def compare_speed(
    engine: Engine,
    siblings: Sequence[tuple[Sibling, Engine]],
    inputs: Inputs,
    batches: Sequence[int],
    *,
    rounds: int = _ROUNDS,
    seconds: float = _SECONDS,
    progress: Progress | None = None,
) -> tuple[SpeedComparison, ...]:
    """Time all engines to the last exit, host to host, in interleaved rounds.

    Args:
        engine: the new engines.
        siblings: the others, opened.
        inputs: N of them, repeated to fill a batch.
        batches: images a call, each size by itself.
        rounds: in which each takes its turn; 2 at least.
        seconds: of one turn.
        progress: called with (rounds done, all rounds).
    """
    times: list[SpeedComparison] = []
    for batches_done, batch in enumerate(batches):
        timed_calls = time_interleaved(
            [engine, *(sibling_engine for _, sibling_engine in siblings)],
            inputs,
            batch,
            rounds=rounds,
            seconds=seconds,
            warm_up_ms=_WARM_UP_MS,
            progress=subprogress(progress, batches_done * rounds, len(batches) * rounds),
        )
        times += [
            _time(sibling, timed_calls[0], timed_call, batch)
            for (sibling, _), timed_call in zip(siblings, timed_calls[1:], strict=True)
        ]
    return tuple(times)


def _time(sibling: Sibling, ours: TimedCall, theirs: TimedCall, batch: int) -> SpeedComparison:
    ratio = ratio_of_means(theirs.rounds, ours.rounds)
    return SpeedComparison(
        digest=sibling.digest,
        precision=sibling.precision,
        batch=batch,
        ms=float(np.median(ours.ms)),
        other_ms=float(np.median(theirs.ms)),
        speedup=ratio.value,
        low=ratio.low,
        high=ratio.high,
        verdict=verdict(ratio),
    )
