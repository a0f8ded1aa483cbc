"""What takes part in a benchmark: an opened artifact and its inputs, made before any clock runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdcompress.artifact.read import Artifact
from sdcompress.benchmarking.clock import TimedCall, TimedPreparation
from sdcompress.data.samples import Samples, originals
from sdcompress.options import EngineOptions
from sdcompress.runtime.engine import Engine, Images, Prediction
from sdcompress.runtime.one_graph import OneGraphEngine, open_one_graph
from sdcompress.runtime.open import open_network

__all__ = [
    "Candidate",
    "Measurement",
    "bench_originals",
    "bench_samples",
    "input_order",
    "open_candidate",
    "split",
]

# Inputs wait preprocessed in memory; this much for each engine is plenty to keep the caches as cold as in service.
_INPUT_BYTES = 2**28
_IMAGES = 2000  # different ones; enough that no cache knows them, few enough to hold in memory
_ORIGINALS = 64  # of which inputs are prepared while a clock runs: a decoded photograph may have 40 MB


@dataclass(frozen=True)
class Candidate:
    """An opened artifact under the name it has in the report.

    Args:
        name: in the report.
        source: folder as given.
        digest: the artifact's; of its one graph, that file's SHA-256.
        layout: the artifact's; of its one graph, that one's kind.
        engine: opened with the threads and the device of the run.
        inputs: preprocessed images, float32 [N, C, H, W], in the order of the run.
        pictures: what inputs are prepared from while the clock runs, as ``Engine.preprocess`` takes it.
        load_ms: opening, hashes included.
        first_ms: the first call, one image.
    """

    name: str
    source: str
    digest: str | None
    layout: str
    engine: Engine | OneGraphEngine
    inputs: npt.NDArray[np.float32]
    pictures: Images
    load_ms: float
    first_ms: float

    def takes(self, batch: int) -> bool:
        """Whether it can be called with so many images."""
        return batch == 1 or not (isinstance(self.engine, OneGraphEngine) and self.engine.batch_of_one)


@dataclass(frozen=True)
class Measurement:
    """A candidate in one scenario.

    Attributes:
        candidate: what is measured.
        free: its own calls.
        preparation: of their inputs.
        forced: calls forced to each exit, for one image at a time.
    """

    candidate: Candidate
    free: TimedCall
    preparation: TimedPreparation
    forced: tuple[TimedCall, ...]

    @classmethod
    def prepare(cls, candidate: Candidate, batch: int, *, forced: bool) -> Measurement:
        """Lay out the inputs in batches; forced lanes only for a chain of segments with several exits."""
        engine, batches = candidate.engine, split(candidate.inputs, batch)
        preparation = TimedPreparation(engine.preprocess, _batches_of(candidate.pictures, batch))
        if isinstance(engine, OneGraphEngine):
            return cls(candidate, TimedCall(engine, batches), preparation, ())
        exits = range(len(engine.exit_names)) if forced and len(engine.exit_names) > 1 else ()
        timed_calls = tuple(TimedCall(_forced(engine, k), batches) for k in exits)
        return cls(candidate, TimedCall(engine, batches), preparation, timed_calls)

    @property
    def timed_calls(self) -> tuple[TimedCall, ...]:
        """All lanes, the free one first."""
        return (self.free, self.preparation, *self.forced)

    @property
    def fixed(self) -> TimedCall:
        """The timed call in which every call does the same work."""
        return self.forced[-1] if self.forced else self.free


def open_candidate(
    name: str,
    artifact: Artifact,
    images: npt.NDArray[np.uint8],
    options: EngineOptions,
    *,
    pictures: Images | None = None,
    largest_batch: int,
    one_graph: bool = False,
) -> Candidate:
    """Make an engine of an artifact, time that and the first call, and preprocess the images.

    Args:
        name: in the report.
        artifact: opened.
        images: uint8 [N, H, W, C] in the order of the run.
        options: of the engine.
        pictures: what inputs are prepared from while the clock runs; default: these images.
        largest_batch: the inputs are repeated to at least this many.
        one_graph: run that instead of the segments.
    """
    start = perf_counter_ns()
    engine = open_one_graph(artifact, options) if one_graph else open_network(artifact, options)
    load_ms = artifact.opening_ms + (perf_counter_ns() - start) / 1e6
    inputs = engine.preprocess(images)
    inputs = np.resize(inputs, (max(len(inputs), largest_batch), *inputs.shape[1:]))  # repeats them
    start = perf_counter_ns()
    engine(inputs[:1])
    first_ms = (perf_counter_ns() - start) / 1e6
    manifest = artifact.manifest
    digest, layout = manifest.digest, str(manifest.layout)
    if one_graph and manifest.one_graph:
        digest, layout = manifest.one_graph.sha256, manifest.one_graph.kind
    originals_ = images[:_ORIGINALS] if pictures is None else pictures
    return Candidate(name, str(artifact.path), digest, layout, engine, inputs, originals_, load_ms, first_ms)


def input_order(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Which images are used, in which order: one fixed permutation, so that every stretch has the mix of the whole.

    A folder of images lies there class by class; taken in that order a short run would see the exits of one class.
    """
    most = max(1, _INPUT_BYTES // (4 * int(np.prod(images.shape[1:]))))
    return np.random.default_rng(0).permutation(len(images))[:most]


def bench_samples(samples: Samples) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Up to 2,000 images of a split, uint8 [N, H, W, C], in a fixed random order, and their labels, int64 [N]."""
    chosen = np.random.default_rng(0).permutation(len(samples))[:_IMAGES]
    return samples.images(chosen), samples.labels[chosen]


def bench_originals(samples: Samples) -> list[Image.Image] | None:
    """Up to 64 images of a split at their own size, fewer where they are large; None where they are not kept so."""
    chosen, pictures, size = np.random.default_rng(0).permutation(len(samples))[:_ORIGINALS], list[Image.Image](), 0
    for position in chosen:
        decoded = originals(samples, np.array([position]))
        if decoded is None:
            return None
        pictures.append(Image.fromarray(decoded[0][:, :, 0] if decoded[0].shape[2] == 1 else decoded[0]))
        size += decoded[0].nbytes
        if size > _INPUT_BYTES:
            break
    return pictures


def split(inputs: npt.NDArray[np.float32], batch: int) -> list[npt.NDArray[np.float32]]:
    """Cut inputs [N, ...] into views of whole batches; fewer than ``batch`` at the end are left out."""
    return [inputs[start : start + batch] for start in range(0, len(inputs) - batch + 1, batch)]


def _batches_of(pictures: Images, batch: int) -> list[Images]:
    """Batches of pictures, which are repeated where there are too few."""
    count = max(1, len(pictures) // batch)
    batches = [[index % len(pictures) for index in range(start * batch, (start + 1) * batch)] for start in range(count)]
    if isinstance(pictures, np.ndarray):
        return [pictures[rows] for rows in batches]
    return [[pictures[row] for row in rows] for rows in batches]


def _forced(engine: Engine, exit_index: int) -> Callable[[npt.NDArray[np.float32]], Prediction]:
    return partial(engine.forced, exit=exit_index)
