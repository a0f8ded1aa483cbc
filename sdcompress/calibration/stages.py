"""What each stage of a cascade costs on this machine: milliseconds at batch 1."""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np

from sdcompress.data.samples import Samples
from sdcompress.runtime.engine import Engine

__all__ = ["stage_ms"]

_IMAGES = 16
_WARMUP_ROUNDS = 3
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 500
_LEAST_MS = 1e-3  # a stage as short as the clock's own noise


def stage_ms(engine: Engine, samples: Samples, *, seconds: float = 1.0) -> tuple[float, ...]:
    """Milliseconds from one exit to the next at batch 1, one per exit.

    All exits take turns on real images, so that a slow moment of the machine hits them alike; the cost of an exit is
    the median of its times, that of a stage the difference of two exits.

    Args:
        engine: runs the stages.
        samples: where the images come from.
        seconds: the longest to measure, unless five rounds take longer.
    """
    chosen = np.linspace(0, len(samples) - 1, min(_IMAGES, len(samples))).astype(np.int64)
    inputs = engine.preprocess(samples.images(chosen))
    exits = range(len(engine.exit_names))
    rounds: list[list[int]] = []
    deadline = perf_counter_ns() + int(seconds * 1e9)
    while len(rounds) < _WARMUP_ROUNDS + _LEAST_ROUNDS or (perf_counter_ns() < deadline and len(rounds) < _MOST_ROUNDS):
        image = inputs[len(rounds) % len(inputs)][None]
        rounds.append([_nanoseconds(engine, image, exit_) for exit_ in exits])
    reached = np.median(np.array(rounds[_WARMUP_ROUNDS:], np.float64), axis=0) / 1e6
    return tuple(float(ms) for ms in np.maximum(np.diff(reached, prepend=0.0), _LEAST_MS))


def _nanoseconds(engine: Engine, image: np.ndarray, position: int) -> int:
    start = perf_counter_ns()
    engine.forced(image, position)
    return perf_counter_ns() - start
