"""Check that onnxruntime's optimisations, integer kernels above all, compute what the graphs define."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from sdcompress.data.samples import Samples
from sdcompress.modalities import modality_of
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import task_of
from sdcompress.verification.sessions import open_sessions

__all__ = ["OptimisedExit", "compare_optimised"]

_SAMPLES, _BATCH = 256, 64
# With and without optimisations a network is about equally far from float32: within 15 % on 14 networks. With an
# average pool that divided by the wrong number it was 37 times as far.
_FACTOR = 1.5


@dataclass(frozen=True)
class OptimisedExit:
    """One exit in the new precision, with and without onnxruntime's optimisations.

    Attributes:
        exit: its name.
        samples: of the validation split.
        written: root mean square distance of its outputs to those in float32, without optimisations.
        optimised: the same with optimisations.
        allowed: limit of ``optimised``.
        problem: what is wrong, as a sentence; empty if the exit passed.
    """

    exit: str
    samples: int
    written: float
    optimised: float
    allowed: float
    problem: str


def compare_optimised(
    manifest: Manifest, before: Sequence[bytes], after: Sequence[bytes], samples: Samples, *, threads: int
) -> tuple[OptimisedExit, ...]:
    """Compare the new graphs with optimisations against the same graphs without.

    Args:
        manifest: of the artifact in float32.
        before: its graphs.
        after: the graphs in the new precision.
        samples: the validation split, of which 256 evenly spaced samples are run.
        threads: of ONNX Runtime.
    """
    float32, optimised, written = (
        open_sessions(manifest, graphs, threads=threads, optimise=optimise)
        for graphs, optimise in ((before, True), (after, True), (after, False))
    )
    chosen = np.linspace(0, len(samples) - 1, min(_SAMPLES, len(samples))).round().astype(np.int64)
    modality, batch = modality_of(manifest), task_of(manifest).batch_size(_BATCH, 3 * len(manifest.exits))
    squares = np.zeros((2, len(manifest.exits)))
    count = 0
    for start in range(0, len(chosen), batch):
        inputs = modality.collate(samples.examples(chosen[start : start + batch]))
        reference = float32(inputs).astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity minus infinity, which check_finite reports
            squares += [
                np.square(run(inputs) - reference).reshape(len(reference), -1).sum(axis=1)
                for run in (written, optimised)
            ]
        count += reference[0].size
    distances = np.sqrt(squares / count)
    return tuple(
        _exit(record.exit, len(chosen), *map(float, distances[:, row]), tolerance=record.allowed)
        for row, record in enumerate(manifest.parity)
    )


def _exit(name: str, samples: int, written: float, optimised: float, *, tolerance: float) -> OptimisedExit:
    allowed = _FACTOR * written + tolerance
    problem = ""
    if optimised > allowed:
        problem = (
            f"outputs are {optimised:.3g} off those of float32 as onnxruntime {onnxruntime.__version__} optimises the "
            f"graphs, and {written:.3g} as they are written"
        )
    return OptimisedExit(name, samples, written, optimised, allowed, problem)
