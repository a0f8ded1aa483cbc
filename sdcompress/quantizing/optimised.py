"""Whether onnxruntime's optimisations, integer kernels above all, compute what the graphs say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from sdcompress.data.samples import Samples
from sdcompress.modalities._geometry import normalise
from sdcompress.schema.manifest import Manifest
from sdcompress.verification.sessions import Chain

__all__ = ["OptimisedExit", "compare_optimised"]

_IMAGES, _BATCH = 256, 64
# Two ways of rounding one network are about equally far from float32: within 15 % on 14 networks. An
# average pool that divided by the wrong number was 37 times as far.
_FACTOR = 1.5


@dataclass(frozen=True)
class OptimisedExit:
    """One exit in the new precision, computed in both ways.

    Attributes:
        exit: its name.
        samples: images of the validation split.
        written: distance of its logits to those in float32, root of the mean square, where each node is computed as it
            is written.
        optimised: the same as onnxruntime optimises the graphs.
        allowed: how large that may be.
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
    """Hold the new graphs as they run against the new graphs as they are written.

    Args:
        manifest: of the artifact in float32.
        before: its graphs.
        after: the graphs in the new precision.
        samples: the validation split, of which 256 images are run, spread evenly over it.
        threads: of ONNX Runtime.
    """
    exact, optimised, written = (
        Chain(
            graphs,
            network_input=manifest.input.name,
            logits=[exit_.logits for exit_ in manifest.exits],
            threads=threads,
            optimise=optimise,
        )
        for graphs, optimise in ((before, True), (after, True), (after, False))
    )
    chosen = np.linspace(0, len(samples) - 1, min(_IMAGES, len(samples))).round().astype(np.int64)
    squares = np.zeros((2, len(manifest.exits)))
    count = 0
    for start in range(0, len(chosen), _BATCH):
        inputs = normalise(samples.images(chosen[start : start + _BATCH]), manifest.input.preprocess)
        reference = exact(inputs).astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity less infinity, which another check tells as not finite
            squares += [np.square(way(inputs) - reference).sum(axis=(1, 2)) for way in (written, optimised)]
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
            f"logits are {optimised:.3g} off those of float32 as onnxruntime {onnxruntime.__version__} optimises the "
            f"graphs, and {written:.3g} as they are written"
        )
    return OptimisedExit(name, samples, written, optimised, allowed, problem)
