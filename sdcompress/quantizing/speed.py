"""How fast a quantised artifact is on this machine, beside the one that it was made of."""

from __future__ import annotations

import numpy as np

from sdcompress.artifact.read import Artifact
from sdcompress.benchmarking.stats import ratio_of_medians, verdict
from sdcompress.benchmarking.turns import take_turns
from sdcompress.data.samples import Samples
from sdcompress.runtime.open import open_engine
from sdcompress.schema.quantized import Speed

__all__ = ["speed_beside"]

# half a second for small networks, and a hundred calls for large ones
_ROUNDS, _SECONDS, _WARM_UP_MS = 20, 0.01, 20.0
_IMAGES = 4


def speed_beside(source: Artifact, made: Artifact, samples: Samples, *, threads: int) -> Speed:
    """Time both in turns in ONNX Runtime, one image at a time, each to its last exit.

    Args:
        source: the artifact in float32.
        made: the artifact in the new precision.
        samples: real images.
        threads: of ONNX Runtime.
    """
    engines = [open_engine(path, threads=threads, allow_uncertified=True) for path in (made, source)]
    chosen = np.linspace(0, len(samples) - 1, _IMAGES).round().astype(np.int64)
    inputs = engines[0].preprocess(samples.images(chosen))
    ours, theirs = take_turns(engines, inputs, 1, rounds=_ROUNDS, seconds=_SECONDS, warm_up_ms=_WARM_UP_MS)
    ratio = ratio_of_medians(theirs.rounds, ours.rounds)
    return Speed(
        threads=threads,
        ms=float(np.median(ours.ms)),
        source_ms=float(np.median(theirs.ms)),
        speedup=ratio.value,
        low=ratio.low,
        high=ratio.high,
        verdict=verdict(ratio),
    )
