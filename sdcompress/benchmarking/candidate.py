"""Candidates of a benchmark: opened artifacts with inputs that are prepared before timing starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.read import Artifact
from sdcompress.benchmarking.timed_calls import Clock, TimedCall, TimedPreparation, split
from sdcompress.data.samples import Samples
from sdcompress.data.samples import originals as originals_of
from sdcompress.errors import DataError
from sdcompress.modalities import Inputs, Modality
from sdcompress.options import EngineOptions
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.choose_backend import USUAL
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.one_graph import OneGraphEngine
from sdcompress.runtime.open import open_cascade, open_one_graph
from sdcompress.tasks import Array

__all__ = [
    "Candidate",
    "Measurement",
    "bench_originals",
    "bench_samples",
    "input_order",
    "open_candidate",
]

# inputs held in memory for each engine; enough to keep caches as cold as in service
_INPUT_BYTES = 2**28
_EXAMPLES = 2000  # distinct examples: too many for a cache, few enough for memory
_ORIGINALS = 64  # raw examples for timing the preparation; a photograph may have 40 MB


@dataclass(frozen=True)
class Candidate:
    """An opened artifact with its name in the report.

    Attributes:
        name: in the report.
        artifact_name: name of the artifact in the report, whatever runs it.
        backend: that runs it.
        source: the folder, as the user gave it.
        digest: of the artifact; for its one graph, the SHA-256 of that file.
        layout: of the artifact; for its one graph, the kind of that.
        engine: opened with threads and device of the run.
        inputs: N of them, in the order of the run.
        prepare: the timed preparation.
        originals: a sequence of its arguments.
        load_ms: time to open the artifact, hashes included.
        first_ms: time of the first call with one sample.
    """

    name: str
    artifact_name: str
    backend: str
    source: str
    digest: str | None
    layout: str
    engine: Engine | OneGraphEngine
    inputs: Inputs
    prepare: Callable[[Any], Inputs]
    originals: Any
    load_ms: float
    first_ms: float

    def takes(self, batch: int) -> bool:
        """Return whether it accepts this batch size."""
        return not isinstance(self.engine, OneGraphEngine) or self.engine.takes(batch)


@dataclass(frozen=True)
class Measurement:
    """A candidate in one scenario.

    Attributes:
        candidate: what is measured.
        free: calls in which the policy decides.
        preparation: preparation of their inputs.
        forced: calls forced to each exit, one sample at a time.
    """

    candidate: Candidate
    free: TimedCall
    preparation: TimedPreparation
    forced: tuple[TimedCall, ...]

    @classmethod
    def prepare(cls, candidate: Candidate, batch: int, *, forced: bool, clock: Clock | None = None) -> Measurement:
        """Create the timed calls of a candidate. Only cascades with several exits have forced calls."""
        engine, batches = candidate.engine, split(candidate.inputs, batch)
        preparation = TimedPreparation(candidate.prepare, _batches_of(candidate.originals, batch), clock)
        if isinstance(engine, OneGraphEngine):
            return cls(candidate, TimedCall(engine, batches, clock), preparation, ())
        exits = range(len(engine.exit_names)) if forced and len(engine.exit_names) > 1 else ()
        timed_calls = tuple(TimedCall(partial(engine.forced, exit=k), batches, clock) for k in exits)
        return cls(candidate, TimedCall(engine, batches, clock), preparation, timed_calls)

    @property
    def timed_calls(self) -> tuple[TimedCall, ...]:
        """Return all timed calls, the free one first."""
        return (self.free, self.preparation, *self.forced)

    @property
    def fixed(self) -> TimedCall:
        """Return the timed call in which every call does the same work."""
        return self.forced[-1] if self.forced else self.free


def open_candidate(
    name: str,
    artifact: Artifact,
    examples: Any,
    options: EngineOptions,
    *,
    originals: Any,
    largest_batch: int,
    one_graph: bool,
    artifact_name: str,
) -> Candidate:
    """Open an artifact and prepare its inputs; time the opening and the first call.

    Args:
        name: in the report.
        artifact: opened.
        examples: N of them, in the order of the run.
        options: of the engine.
        originals: raw examples for timing the preparation; None: the examples.
        largest_batch: inputs are repeated to at least this number.
        one_graph: run the one graph instead of the segments.
        artifact_name: name of the artifact in the report.
    """
    start = perf_counter_ns()
    engine = open_one_graph(artifact, options) if one_graph else open_cascade(artifact, options)
    load_ms = artifact.opening_ms + (perf_counter_ns() - start) / 1e6
    collate = partial(_collated, engine.modality)
    inputs = collate(examples)
    inputs = inputs[np.arange(max(len(inputs), largest_batch)) % len(inputs)]  # repeats them
    start = perf_counter_ns()
    engine(inputs[:1])
    first_ms = (perf_counter_ns() - start) / 1e6
    manifest = artifact.manifest
    digest, layout = manifest.digest, str(manifest.layout)
    if one_graph and manifest.one_graph:
        digest, layout = manifest.one_graph.sha256, manifest.one_graph.kind
    timed = (collate, examples[:_ORIGINALS]) if originals is None else (engine.preprocess, originals)
    return Candidate(
        name,
        artifact_name,
        engine.execution_target.backend if isinstance(engine, CascadeEngine) else USUAL,  # "auto" has chosen one
        str(artifact.path),
        digest,
        layout,
        engine,
        inputs,
        *timed,
        load_ms,
        first_ms,
    )


def _collated(modality: Modality, examples: Any) -> Inputs:
    """Return examples as inputs; those of another network, such as images of another size, are prepared as raw."""
    try:
        return modality.collate(examples)
    except DataError:
        return modality.prepare(examples)


def input_order(examples: Any, modality: Modality) -> npt.NDArray[np.int64]:
    """Return a fixed random order of the examples, int64, so that every part of a run has the same mix of targets.

    Data sets are often sorted by class. In that order a short run would see the exits of one class only.
    """
    most = max(1, _INPUT_BYTES // sum(array.nbytes for array in _collated(modality, examples[:1]).arrays.values()))
    return np.random.default_rng(0).permutation(len(examples))[:most]


def bench_samples(samples: Samples) -> tuple[Any, Array]:
    """Return up to 2,000 examples of a split in a fixed random order, and their targets."""
    chosen = np.random.default_rng(0).permutation(len(samples))[:_EXAMPLES]
    return samples.examples(chosen), samples.targets[chosen]


def bench_originals(samples: Samples, modality: Modality) -> list[Any] | None:
    """Return up to 64 raw examples in memory, fewer if they are large; None if originals are not kept."""
    chosen, decoded, size = np.random.default_rng(0).permutation(len(samples))[:_ORIGINALS], list[Any](), 0
    for index in chosen:
        kept = originals_of(samples, np.array([index]))
        if kept is None:
            return None
        decoded.append(modality.decode(kept[0]))
        size += np.asarray(decoded[-1]).nbytes
        if size > _INPUT_BYTES:
            break
    return decoded


def _batches_of(raw: Any, batch: int) -> list[Any]:
    """Return batches of raw examples, repeated if there are too few."""
    count = max(1, len(raw) // batch)
    batches = [[index % len(raw) for index in range(start * batch, (start + 1) * batch)] for start in range(count)]
    if isinstance(raw, np.ndarray):
        return [raw[rows] for rows in batches]
    return [[raw[row] for row in rows] for rows in batches]
