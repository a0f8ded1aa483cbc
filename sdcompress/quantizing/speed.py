"""Compare the speed of a quantised artifact with that of its source on this machine."""

from __future__ import annotations

import numpy as np

from sdcompress.artifact.read import Artifact
from sdcompress.benchmarking.stats import ratio_of_medians, verdict
from sdcompress.benchmarking.timed_calls import time_interleaved
from sdcompress.data.samples import Samples
from sdcompress.runtime.open import open_engine
from sdcompress.schema.change import Speed

__all__ = ["speed_beside"]

# half a second for small networks, and a hundred calls for large ones
_ROUNDS, _SECONDS, _WARM_UP_MS = 20, 0.01, 20.0
_EXAMPLES = 4


def speed_beside(source: Artifact, quantised: Artifact, samples: Samples, *, threads: int) -> Speed:
    """Time both artifacts in turns in ONNX Runtime, one sample at a time, to the last exit.

    Args:
        source: the artifact in float32.
        quantised: the artifact in the new precision.
        samples: real ones.
        threads: of ONNX Runtime.
    """
    engines = [open_engine(path, threads=threads, allow_uncertified=True) for path in (quantised, source)]
    chosen = np.linspace(0, len(samples) - 1, _EXAMPLES).round().astype(np.int64)
    inputs = engines[0].modality.collate(samples.examples(chosen))
    new, old = time_interleaved(engines, inputs, 1, rounds=_ROUNDS, seconds=_SECONDS, warm_up_ms=_WARM_UP_MS)
    ratio = ratio_of_medians(old.rounds, new.rounds)
    return Speed(
        threads=threads,
        ms=float(np.median(new.ms)),
        source_ms=float(np.median(old.ms)),
        speedup=ratio.value,
        low=ratio.low,
        high=ratio.high,
        verdict=verdict(ratio),
    )
