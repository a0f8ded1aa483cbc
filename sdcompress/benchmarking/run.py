"""Benchmark artifacts in interleaved rounds (A B, B A, A B ...), in one process, on the same images.

``duration_s`` is the measured time of one artifact in one scenario at one batch size. It is split over ``rounds``
rounds, in which the artifacts take turns. Every second round runs backwards, so that drift of the machine affects all.
In the single-stream scenario a cascade is measured for ``duration_s`` again, forced to each exit in turn. The
preparation of inputs is timed separately in the same rounds, for a fifth of the time. A benchmark takes about 1.2 x
duration_s x artifacts x (1 + offline batch sizes), plus duration_s for each cascade, plus warm-ups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.benchmarking.candidate import Candidate, Measurement, input_order, open_candidate
from sdcompress.benchmarking.clock import no_collection
from sdcompress.benchmarking.record import Scenario, compare, record
from sdcompress.errors import InputError, UnknownNameError, UsageError
from sdcompress.machine import check_threads, machine
from sdcompress.options import EngineOptions
from sdcompress.progress import Progress, part, silent
from sdcompress.runtime.open import USUAL
from sdcompress.schema.recipe import Bench
from sdcompress.schema.report import BenchReport

__all__ = ["bench"]

_PREPARATION_SHARE = 0.2  # of the time of the calls; preparation varies little


def bench(
    artifacts: Sequence[Artifact | str | Path],
    *,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64] | None = None,
    settings: Bench,
    names: Sequence[str] | None = None,
    reference: str | None = None,
    originals: Sequence[Image.Image] | None = None,
    source: str = "given images",
    command: str = "",
    allow_uncertified: bool = False,
    progress: Progress | None = None,
) -> BenchReport:
    """Benchmark artifacts against each other in a closed loop.

    The preparation of inputs is timed separately; end-to-end times are the sum of both.

    Args:
        artifacts: folders. An artifact with one graph is also measured as "NAME (one graph)".
        images: uint8 [N, H, W, C], real images; used in a fixed random order, in a cycle.
        labels: int64 [N]; if given, accuracy is reported.
        settings: scenarios, threads, durations.
        names: names in the report, one for each artifact; default: the names of the folders.
        reference: name of the artifact that the others are compared with; default: the first.
        originals: decoded images at their original size, for timing the preparation; default: ``images``, which need no
            resizing.
        source: the source of the images, for the report.
        command: what the user typed, for the report.
        allow_uncertified: also run what a certificate does not cover, such as another device.
        progress: called with (rounds done, all rounds).

    Raises:
        UsageError: if there are no artifacts, names are not unique, or threads exceed what this machine runs at once.
        UnknownNameError: if the reference is not among the artifacts.
        InputError: if there are no images, or labels of another number.
    """
    check_threads(settings.threads)
    named = _named(artifacts, names)
    reference = _check_reference(reference or next(iter(named)), named)
    _check(images, labels)
    facts = machine()  # before the run, whose own load must not count
    order = input_order(images)
    opened = {name: open_artifact(artifact) for name, artifact in named.items()}
    candidates = _open(opened, images[order], originals, settings, allow_uncertified=allow_uncertified)
    in_order = None if labels is None else np.resize(labels[order], len(candidates[0].inputs))
    records, comparisons = [], []
    for measurements, scenario, batch in _run(candidates, settings, progress):
        records += [record(c, scenario, batch, labels=in_order, settings=settings, machine=facts) for c in measurements]
        comparisons += compare(measurements, reference, scenario, batch)
    return BenchReport(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        machine=facts,
        threads=settings.threads,
        backend=settings.backend,
        device=settings.device,
        input=f"{source}: {len(order)} different images in a fixed random order",
        preparation=_prepared_from(images, originals),
        warmup_ms=settings.warmup_ms,
        duration_s=settings.duration_s,
        records=tuple(records),
        comparisons=tuple(comparisons),
    )


def _prepared_from(images: npt.NDArray[np.uint8], originals: Sequence[Image.Image] | None) -> str:
    """Describe the images from which inputs were prepared."""
    sizes = [images.shape[2:0:-1]] if originals is None else [image.size for image in originals]
    small, large = ("x".join(map(str, size)) for size in (min(sizes), max(sizes)))
    pixels = small if small == large else f"{small} to {large}"
    resized = "nothing is resized" if originals is None else "resized and cropped as the network wants it"
    return f"from decoded images of {pixels} pixels (width x height), {resized}; decoding a file is not included"


def _open(
    named: Mapping[str, Artifact],
    images: npt.NDArray[np.uint8],
    originals: Sequence[Image.Image] | None,
    settings: Bench,
    *,
    allow_uncertified: bool,
) -> list[Candidate]:
    runs = [(name, artifact, False) for name, artifact in named.items()]
    if settings.backend == USUAL:  # others run the segments only
        runs += [(f"{name} (one graph)", one, True) for name, one in named.items() if one.manifest.one_graph]
    options = EngineOptions(settings.backend, settings.threads, settings.device, allow_uncertified)
    return [
        open_candidate(
            name,
            artifact,
            images,
            options,
            pictures=originals,
            largest_batch=max((1, *settings.batch)),
            one_graph=one_graph,
        )
        for name, artifact, one_graph in runs
    ]


def _run(
    candidates: Sequence[Candidate], settings: Bench, progress: Progress | None
) -> Iterator[tuple[list[Measurement], Scenario, int]]:
    """Yield the measurements of each scenario and batch size."""
    plan = _plan(settings)
    for done, (scenario, batch) in enumerate(plan):
        tick = part(progress, done * settings.rounds, len(plan) * settings.rounds) or silent
        yield _measure(candidates, scenario, batch, settings, tick), scenario, batch


def _plan(settings: Bench) -> list[tuple[Scenario, int]]:
    """Return the scenarios with their batch sizes: 1 for single-stream, all configured sizes for offline."""
    return [
        (scenario, batch)
        for scenario in settings.scenarios
        for batch in ((1,) if scenario == "single-stream" else settings.batch)
    ]


def _measure(
    candidates: Sequence[Candidate], scenario: Scenario, batch: int, settings: Bench, tick: Progress
) -> list[Measurement]:
    fit = [candidate for candidate in candidates if candidate.takes(batch)]
    measurements = [Measurement.prepare(candidate, batch, forced=scenario == "single-stream") for candidate in fit]
    for measurement in measurements:
        for timed_call in measurement.timed_calls:
            timed_call.warm_up(settings.warmup_ms)
    seconds = settings.duration_s / settings.rounds
    with no_collection():
        for done in range(settings.rounds):
            for measurement in measurements if done % 2 == 0 else measurements[::-1]:
                measurement.free.measure(seconds)
                measurement.preparation.measure(seconds * _PREPARATION_SHARE)
                for timed_call in measurement.forced:
                    timed_call.measure(seconds / len(measurement.forced))
            tick(done + 1, settings.rounds)
    return measurements


def _named(artifacts: Sequence[Artifact | str | Path], names: Sequence[str] | None) -> dict[str, Artifact | str | Path]:
    paths = [one.path if isinstance(one, Artifact) else Path(one) for one in artifacts]
    names = [path.resolve().name for path in paths] if names is None else names
    if not paths or len(set(names)) != len(paths) or len(names) != len(paths):
        raise UsageError(
            f"{len(paths)} artifacts have the names {', '.join(names) or '(none)'}.",
            allowed="one artifact or more, each with a unique name",
            next_step="give each artifact another name",
        )
    return dict(zip(names, artifacts, strict=True))


def _check_reference(reference: str, named: Iterable[str]) -> str:
    if reference not in named:
        raise UnknownNameError("artifacts of this benchmark", reference, named)
    return reference


def _check(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64] | None) -> None:
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) == 0:
        raise InputError(
            f"The images have the shape {images.shape} and the type {images.dtype}.",
            allowed="uint8 [N, H, W, C] with at least one image",
            next_step="pass decoded images, not preprocessed ones",
        )
    if labels is not None and labels.shape != images.shape[:1]:
        raise InputError(
            f"There are {len(images)} images and labels of shape {labels.shape}.",
            allowed=f"labels of shape ({len(images)},)",
            next_step="pass one label for each image, or none",
        )
