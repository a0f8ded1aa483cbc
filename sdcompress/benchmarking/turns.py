"""Time engines in interleaved rounds, so that changes of the machine affect all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from sdcompress.benchmarking.candidate import split
from sdcompress.benchmarking.clock import TimedCall, no_collection
from sdcompress.modalities import Inputs
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine

__all__ = ["take_turns"]

_BATCHES = 4  # distinct inputs, so that no call reuses those of the call before


def take_turns(
    engines: Sequence[Engine],
    inputs: Inputs,
    batch: int,
    *,
    rounds: int,
    seconds: float,
    warm_up_ms: float,
    progress: Progress | None = None,
) -> list[TimedCall]:
    """Time all engines up to their last exit, host to host, in rounds of alternating direction.

    Args:
        engines: E of them.
        inputs: N of them, repeated as needed.
        batch: samples in a call.
        rounds: number of rounds, at least 2.
        seconds: of one turn, at least one call.
        warm_up_ms: of each engine, at least ten calls.
        progress: called with the (rounds done, all rounds).

    Returns:
        E timed calls with the times of every round.
    """
    parts = split(inputs[np.arange(_BATCHES * batch) % len(inputs)], batch)
    timed_calls = [TimedCall(partial(engine.forced, exit=-1), parts) for engine in engines]
    for timed_call in timed_calls:
        timed_call.warm_up(warm_up_ms)
    with no_collection():
        for turn in range(rounds):
            for timed_call in timed_calls if turn % 2 == 0 else timed_calls[::-1]:
                timed_call.measure(seconds)
            if progress:
                progress(turn + 1, rounds)
    return timed_calls
