"""Benchmark artifacts in interleaved rounds (A B, B A, A B ...), in one process, on the same examples.

``duration_s`` is the measured time of one artifact in one scenario at one batch size. It is split over ``rounds``
rounds with all artifacts. Every second round runs backwards, so that drift of the machine affects all. In the
single-stream scenario a cascade is measured for ``duration_s`` again, with calls forced to each exit. The preparation
of inputs is timed separately in the same rounds, for a fifth of the time. A benchmark takes about 1.2 x
duration_s x artifacts x (1 + offline batch sizes), plus duration_s for each cascade, plus warm-ups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.benchmarking.candidate import Candidate, Measurement, input_order, open_candidate
from sdcompress.benchmarking.record import Scenario, compare, compare_backends, record
from sdcompress.benchmarking.timed_calls import clock_of, interleaved, no_collection
from sdcompress.errors import InputError, UnknownNameError, UsageError
from sdcompress.machine import check_threads, machine
from sdcompress.options import EngineOptions
from sdcompress.progress import Progress, subprogress
from sdcompress.runtime.choose_backend import USUAL
from sdcompress.schema.recipe import Bench
from sdcompress.schema.report import BenchReport
from sdcompress.tasks import Array

__all__ = ["bench"]

_PREPARATION_SHARE = 0.2  # of the time of the calls; preparation varies little


def bench(
    artifacts: Sequence[Artifact | str | Path],
    *,
    examples: Any,
    targets: Array | None = None,
    settings: Bench,
    names: Sequence[str] | None = None,
    reference: str | None = None,
    originals: Sequence[Any] | None = None,
    source: str = "given examples",
    command: str = "",
    allow_uncertified: bool = False,
    progress: Progress | None = None,
) -> BenchReport:
    """Measure the latency of artifacts in a closed loop, in interleaved rounds.

    The preparation of inputs is timed separately; end-to-end times are the sum of both.

    Args:
        artifacts: folders. An artifact with one graph is also measured as "NAME (one graph)". With several backends
            in the settings, each is measured as "NAME (BACKEND)".
        examples: N real ones, as ``Samples.examples`` gives them; used in a fixed random order, in a cycle. An
            artifact that takes other examples than the first prepares them as raw ones.
        targets: [N, ...], of the first artifact's task; if given, the metric of all artifacts of that task is reported.
        settings: scenarios, threads, durations.
        names: names in the report, one for each artifact; default: the names of the folders.
        reference: name of the artifact that the others are compared with, on the first backend; default: the first.
        originals: raw examples in memory, for timing the preparation; default: ``examples``.
        source: the source of the examples, for the report.
        command: the command that the user typed, for the report.
        allow_uncertified: also run an execution target that the certificate does not cover.
        progress: called with (rounds done, all rounds).

    Raises:
        UsageError: if there are no artifacts, names are not unique, or threads exceed what this machine runs at once.
        UnknownNameError: if the reference is not among the artifacts.
        InputError: if there are no examples, or another number of targets.
        DataError: if the task cannot have these targets, or an artifact cannot take the examples.
    """
    check_threads(settings.threads)
    named = _named(artifacts, names)
    reference = _check_reference(reference or next(iter(named)), named)
    _check(examples, targets)
    facts = machine()  # before the run, whose own load must not count
    opened = {name: open_artifact(artifact) for name, artifact in named.items()}
    first = next(iter(opened.values()))
    if targets is not None:
        first.task.check_targets(targets)
    order = input_order(examples, first.modality)
    candidates = _open(opened, examples[order], originals, settings, allow_uncertified=allow_uncertified)
    in_order = None if targets is None else targets[order[np.arange(len(candidates[0].inputs)) % len(order)]]
    compared_with = next(one.name for one in candidates if one.artifact_name == reference)
    records, comparisons, between_backends = [], [], []
    for measurements, scenario, batch in _run(candidates, settings, progress):
        for one in measurements:
            known = in_order if one.candidate.engine.task == first.task else None
            records.append(record(one, scenario, batch, targets=known, settings=settings, machine=facts))
        comparisons += compare(measurements, compared_with, scenario, batch)
        between_backends += compare_backends(measurements, scenario, batch)
    return BenchReport(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        machine=facts,
        threads=settings.threads,
        backend=",".join(settings.backends),
        device=settings.device,
        input=f"{source}: {len(order)} different examples in a fixed random order",
        preparation=first.modality.preparation_text(originals),
        warmup_ms=settings.warmup_ms,
        duration_s=settings.duration_s,
        clock=settings.clock,
        records=tuple(records),
        comparisons=tuple(comparisons),
        backend_comparisons=tuple(between_backends),
    )


def _open(
    named: Mapping[str, Artifact],
    examples: Any,
    originals: Sequence[Any] | None,
    settings: Bench,
    *,
    allow_uncertified: bool,
) -> list[Candidate]:
    several = len(settings.backends) > 1
    runs = [
        (f"{name} ({backend})" if several else name, name, artifact, backend, False)
        for name, artifact in named.items()
        for backend in settings.backends
    ]
    if USUAL in settings.backends:  # others run the segments only
        graphs = {f"{name} (one graph)": one for name, one in named.items() if one.manifest.one_graph}
        runs += [(name, name, artifact, USUAL, True) for name, artifact in graphs.items()]
    return [
        open_candidate(
            name,
            artifact,
            examples,
            EngineOptions(backend, settings.threads, settings.device, allow_uncertified),
            originals=originals,
            largest_batch=max((1, *settings.batch_sizes)),
            one_graph=one_graph,
            artifact_name=artifact_name,
        )
        for name, artifact_name, artifact, backend, one_graph in runs
    ]


def _run(
    candidates: Sequence[Candidate], settings: Bench, progress: Progress | None
) -> Iterator[tuple[list[Measurement], Scenario, int]]:
    """Yield the measurements of each scenario and batch size: 1 for single-stream, all configured sizes for offline."""
    combinations = [
        (scenario, batch)
        for scenario in settings.scenarios
        for batch in ((1,) if scenario == "single-stream" else settings.batch_sizes)
    ]
    for done, (scenario, batch) in enumerate(combinations):
        counted = subprogress(progress, done * settings.rounds, len(combinations) * settings.rounds)
        yield _measure(candidates, scenario, batch, settings, counted), scenario, batch


def _measure(
    candidates: Sequence[Candidate], scenario: Scenario, batch: int, settings: Bench, progress: Progress | None
) -> list[Measurement]:
    fit = [candidate for candidate in candidates if candidate.takes(batch)]
    clock, forced = clock_of(settings.clock), scenario == "single-stream"
    measurements = [Measurement.prepare(candidate, batch, forced=forced, clock=clock) for candidate in fit]
    for measurement in measurements:
        for timed_call in measurement.timed_calls:
            timed_call.warm_up(settings.warmup_ms)
    seconds = settings.duration_s / settings.rounds
    with no_collection():
        for measurement in interleaved(measurements, settings.rounds, progress):
            measurement.free.measure(seconds)
            measurement.preparation.measure(seconds * _PREPARATION_SHARE)
            for timed_call in measurement.forced:
                timed_call.measure(seconds / len(measurement.forced))
    return measurements


def _named(artifacts: Sequence[Artifact | str | Path], names: Sequence[str] | None) -> dict[str, Artifact | str | Path]:
    paths = [one.path if isinstance(one, Artifact) else Path(one) for one in artifacts]
    names = [path.resolve().name for path in paths] if names is None else names
    if not paths or len(set(names)) != len(paths) or len(names) != len(paths):
        raise UsageError(
            f"{len(paths)} artifacts ({', '.join(map(str, paths))}) have the names {', '.join(names) or '(none)'}.",
            allowed="one artifact or more, each with a unique name: that of its folder, to which links lead",
            next_step="name each folder once, and give one of two another name; in Python pass names",
        )
    return dict(zip(names, artifacts, strict=True))


def _check_reference(reference: str, named: Iterable[str]) -> str:
    if reference not in named:
        raise UnknownNameError("artifacts of this benchmark", reference, named)
    return reference


def _check(examples: Any, targets: Array | None) -> None:
    if len(examples) == 0:
        raise InputError("There are no examples.", allowed="at least one", next_step="pass examples of real data")
    if targets is not None and len(targets) != len(examples):
        raise InputError(
            f"There are {len(examples)} examples and {len(targets)} targets.",
            allowed=f"{len(examples)} targets",
            next_step="pass one target for each example, or none",
        )
