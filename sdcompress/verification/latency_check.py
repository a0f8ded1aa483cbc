"""Check that exiting early saves time: time one graph against itself without early exits, and without any exits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from sdcompress.errors import VerificationError
from sdcompress.modalities import Inputs
from sdcompress.progress import Progress
from sdcompress.schema.graphs import PathTime

__all__ = ["TimedGraphs", "check_faster", "time_paths"]

Call = Callable[[Inputs], object]

_SAMPLES = 8
_WARMUP_ROUNDS, _LEAST_ROUNDS, _MOST_ROUNDS = 3, 30, 300
_CHANCE = 1e-3


@dataclass(frozen=True)
class TimedGraphs:
    """The graphs that are timed, each a call with the inputs of one sample.

    Attributes:
        graph: the graph with its thresholds.
        never_exiting: the same graph with thresholds that no sample reaches.
        without_exits: the network without exits.
    """

    graph: Call
    never_exiting: Call
    without_exits: Call


def time_paths(
    graphs: TimedGraphs,
    inputs: Inputs,
    exit_index: npt.NDArray[np.int64],
    exits: Sequence[str],
    *,
    seconds: float = 1.0,
    progress: Progress | None = None,
) -> tuple[PathTime, ...]:
    """Return the time to each exit, with real samples that exit there.

    In each round one sample goes through all three graphs, once untimed and once timed. So the load of the machine
    affects all three alike.

    Args:
        graphs: opened with one thread.
        inputs: of N samples.
        exit_index: int64 [N], the exit of each sample.
        exits: E names.
        seconds: time limit for one exit, unless 30 rounds take longer.
        progress: called with (exits timed, all exits).
    """
    times = []
    for position, name in enumerate(exits):
        times.append(_path(graphs, inputs[np.flatnonzero(exit_index == position)[:_SAMPLES]], name, seconds))
        if progress:
            progress(position + 1, len(exits))
    return tuple(times)


def _path(graphs: TimedGraphs, samples: Inputs, name: str, seconds: float) -> PathTime:
    if len(samples) == 0:
        return PathTime(exit=name, samples=0)
    rounds: list[list[int]] = []
    deadline = perf_counter_ns() + int(seconds * 1e9)
    while len(rounds) < _WARMUP_ROUNDS + _LEAST_ROUNDS or (perf_counter_ns() < deadline and len(rounds) < _MOST_ROUNDS):
        at = len(rounds) % len(samples)
        sample = samples[at : at + 1]
        calls = (graphs.graph, graphs.never_exiting, graphs.without_exits)
        rounds.append([_nanoseconds(call, sample) for call in calls])
    times_ms = np.array(rounds[_WARMUP_ROUNDS:], np.float64) / 1e6
    ms, full_depth_ms, no_exits_ms = (float(median) for median in np.median(times_ms, axis=0))
    return PathTime(
        exit=name,
        samples=len(samples),
        rounds=len(times_ms),
        ms=ms,
        full_depth_ms=full_depth_ms,
        no_exits_ms=no_exits_ms,
        wins_vs_full_depth=int((times_ms[:, 0] < times_ms[:, 1]).sum()),
        wins_vs_no_exits=int((times_ms[:, 0] < times_ms[:, 2]).sum()),
    )


def _nanoseconds(call: Call, sample: Inputs) -> int:
    call(sample)  # the caches hold the graph before
    start = perf_counter_ns()
    call(sample)
    return perf_counter_ns() - start


def check_faster(times: Sequence[PathTime]) -> None:
    """Refuse a graph whose early exits save no time.

    At each exit that samples take, exiting must be faster than running to the end. At the first of them it must also be
    faster than the network without exits. Both are sign tests at a level of 0.001.

    Args:
        times: of every exit, the last one included.

    Raises:
        VerificationError: if an exit is not faster.
    """
    early = [time for time in times[:-1] if time.samples]
    slow = [time for time in early if _chance(time.wins_vs_full_depth, time.rounds) > _CHANCE]
    slow = slow or [time for time in early[:1] if _chance(time.wins_vs_no_exits, time.rounds) > _CHANCE]
    if early and not slow:
        return
    problem = "None of the samples exits early, so that no exit can be shown to be faster."
    if slow:
        problem = f"Exiting early is not faster: {'; '.join(map(_figures, slow))}."
    raise VerificationError(
        problem,
        allowed="at every exit that samples take, less time than the same samples take to the end; at the first one, "
        "less than in the network without exits",
        next_step="export again on an idle machine; if it fails again, use fewer exits (exits in the recipe) or the "
        "truncated network: sdcompress export --layout single --truncate-at NAME",
    )


def _chance(faster: int, rounds: int) -> float:
    """The p-value of the sign test: the probability of ``faster`` or more wins if both were equally fast."""
    return float(sum(math.comb(rounds, count) for count in range(faster, rounds + 1)) / 2**rounds)


def _figures(time: PathTime) -> str:
    return (
        f"{time.exit} in {time.ms:.3f} ms, to the end in {time.full_depth_ms:.3f} ms (faster in "
        f"{time.wins_vs_full_depth} of {time.rounds} rounds), the network without exits in {time.no_exits_ms:.3f} ms "
        f"({time.wins_vs_no_exits} rounds)"
    )
