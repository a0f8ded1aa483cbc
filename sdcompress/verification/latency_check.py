"""Does leaving early save time? One graph against itself without leaving, and against the network without exits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from sdcompress.errors import VerificationError
from sdcompress.policies._base import Float
from sdcompress.progress import Progress
from sdcompress.schema.graphs import PathTime

__all__ = ["TimedGraphs", "check_faster", "time_paths"]

Call = Callable[[Float], object]

_IMAGES = 8
_WARMUP_ROUNDS, _LEAST_ROUNDS, _MOST_ROUNDS = 3, 30, 300
_CHANCE = 1e-3


@dataclass(frozen=True)
class TimedGraphs:
    """What is timed, each a call with float32 [1, C, H, W].

    Attributes:
        graph: the graph, in which images leave.
        endless: the same with thresholds that nobody reaches.
        whole: the network without exits.
    """

    graph: Call
    endless: Call
    whole: Call


def time_paths(
    graphs: TimedGraphs,
    inputs: Float,
    left: npt.NDArray[np.int64],
    exits: Sequence[str],
    *,
    seconds: float = 1.0,
    progress: Progress | None = None,
) -> tuple[PathTime, ...]:
    """The time to each exit, with real images that leave there.

    In each round one image goes through all three, once untimed and once timed, so that the ratio is of calls that the
    machine's mood hits alike.

    Args:
        graphs: opened with one thread.
        inputs: float32 [N, C, H, W].
        left: int64 [N], the exit of each.
        exits: E names.
        seconds: the longest for one exit, unless 30 rounds take longer.
        progress: called with (exits timed, all exits).
    """
    times = []
    for position, name in enumerate(exits):
        times.append(_path(graphs, inputs[np.flatnonzero(left == position)[:_IMAGES]], name, seconds))
        if progress:
            progress(position + 1, len(exits))
    return tuple(times)


def _path(graphs: TimedGraphs, images: Float, name: str, seconds: float) -> PathTime:
    if len(images) == 0:
        return PathTime(exit=name, images=0)
    rounds: list[list[int]] = []
    deadline = perf_counter_ns() + int(seconds * 1e9)
    while len(rounds) < _WARMUP_ROUNDS + _LEAST_ROUNDS or (perf_counter_ns() < deadline and len(rounds) < _MOST_ROUNDS):
        image = images[len(rounds) % len(images)][None]
        rounds.append([_nanoseconds(call, image) for call in (graphs.graph, graphs.endless, graphs.whole)])
    took = np.array(rounds[_WARMUP_ROUNDS:], np.float64) / 1e6
    ms, to_end_ms, whole_ms = (float(median) for median in np.median(took, axis=0))
    return PathTime(
        exit=name,
        images=len(images),
        rounds=len(took),
        ms=ms,
        to_end_ms=to_end_ms,
        whole_ms=whole_ms,
        faster=int((took[:, 0] < took[:, 1]).sum()),
        faster_than_whole=int((took[:, 0] < took[:, 2]).sum()),
    )


def _nanoseconds(call: Call, image: Float) -> int:
    call(image)  # the caches hold another graph
    start = perf_counter_ns()
    call(image)
    return perf_counter_ns() - start


def check_faster(times: Sequence[PathTime]) -> None:
    """Refuse a graph that gains nothing by letting images leave.

    At each exit where images leave, leaving must be faster than running to the end, and at the first of them it must
    be faster than the network without exits: in more rounds than chance would give once in a thousand times (sign
    test).

    Args:
        times: of every exit; the last one has nothing to gain.

    Raises:
        VerificationError: with the figures.
    """
    early = [time for time in times[:-1] if time.images]
    slow = [time for time in early if _chance(time.faster, time.rounds) > _CHANCE]
    slow = slow or [time for time in early[:1] if _chance(time.faster_than_whole, time.rounds) > _CHANCE]
    if early and not slow:
        return
    found = "No image at hand leaves early, so that nothing can be shown to be faster."
    if slow:
        found = f"Leaving early is not faster: {'; '.join(map(_figures, slow))}."
    raise VerificationError(
        found,
        allowed="at every exit where images leave, less time than the same images take to the end; at the first one, "
        "less than in the network without exits",
        next_step="export again on a machine that does nothing else; if it stays so, use fewer exits (exits in the "
        "recipe) or the truncated network: sdcompress export --layout single --exit NAME",
    )


def _chance(faster: int, rounds: int) -> float:
    """The probability of at least so many of the rounds, if both were equally fast."""
    return float(sum(math.comb(rounds, count) for count in range(faster, rounds + 1)) / 2**rounds)


def _figures(time: PathTime) -> str:
    return (
        f"{time.exit} in {time.ms:.3f} ms, to the end in {time.to_end_ms:.3f} ms (faster in {time.faster} of "
        f"{time.rounds} rounds), the network without exits in {time.whole_ms:.3f} ms ({time.faster_than_whole} rounds)"
    )
