"""Time engines in turns, so that what slows the machine down slows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from sdcompress.benchmarking.candidate import split
from sdcompress.benchmarking.clock import TimedCall, no_collection
from sdcompress.policies._base import Float
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine

__all__ = ["take_turns"]

_BATCHES = 4  # of different inputs: enough that no call sees those of the one before


def take_turns(
    engines: Sequence[Engine],
    inputs: Float,
    batch: int,
    *,
    rounds: int,
    seconds: float,
    warm_up_ms: float,
    progress: Progress | None = None,
) -> list[TimedCall]:
    """Time all engines to their last exit, host to host, in rounds that go back and forth.

    Args:
        engines: E of them.
        inputs: float32 [N, C, H, W], repeated as often as is needed.
        batch: images a call.
        rounds: in which each takes its turn; 2 at least.
        seconds: of one turn, which is one call at least.
        warm_up_ms: of each engine, ten calls at least.
        progress: called with (rounds done, all rounds).

    Returns:
        E lanes with the times of every round.
    """
    parts = split(np.resize(inputs, (_BATCHES * batch, *inputs.shape[1:])), batch)
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
