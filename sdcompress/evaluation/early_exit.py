"""Compute exits, losses and costs of samples from the losses of every exit.

E exits, N samples. ``exit_index`` is int64 [N], the exit at which each sample leaves; ``loss`` is float [E, N] in
[0, 1], of each exit's decision; ``reach`` is float [E], what it costs to get to each exit (ms or MACs).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.tasks import metric_of

__all__ = [
    "Waste",
    "exit_shares",
    "oracle_exits",
    "overthinking",
    "paired_difference",
    "paired_interval",
    "score_at",
    "shares_by_stratum",
]

Exits = npt.NDArray[np.int64]
Losses = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]

_Z95 = 1.959964


class Waste(NamedTuple):
    """What samples lose by going on after the best exit.

    Attributes:
        wasteful: share of samples that lose least at an exit before theirs.
        wasted: cost after that exit, mean over all samples.
        destructive: share of samples that lose more at their exit than at an earlier one.
    """

    wasteful: float
    wasted: float
    destructive: float


def score_at(exit_index: Exits, loss: Losses) -> float:
    """Return the metric at the samples' exits."""
    return metric_of(_taken(exit_index, loss))


def exit_shares(exit_index: Exits, exits: int) -> Float64:
    """Return the share of samples that leave at each exit, [E]."""
    return np.bincount(exit_index, minlength=exits) / len(exit_index)


def shares_by_stratum(exit_index: Exits, strata: Exits, exits: int, count: int) -> Float64:
    """Return the share of each stratum's samples that leave at each exit, [K, E]; NaN for a stratum without samples."""
    counts = np.bincount(strata * exits + exit_index, minlength=count * exits).reshape(count, exits)
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def oracle_exits(loss: Losses) -> Exits:
    """Return the first exit with the least loss of each sample, int64 [N]; the last where no exit loses less than 1."""
    return np.where((loss < 1).any(axis=0), loss.argmin(axis=0), len(loss) - 1)


def overthinking(exit_index: Exits, loss: Losses, reach: npt.ArrayLike) -> Waste:
    """Return the computation after the best decision was reached, and how often it is lost again.

    Kaya, Hong and Dumitras, "Shallow-Deep Networks: Understanding and Mitigating Network Overthinking", ICML 2019
    (arXiv:1810.07052), who look at the whole network: ``exit_index`` is then the last exit for all.

    Args:
        exit_index: where the samples leave.
        loss: of each exit.
        reach: [E], cost until each exit.
    """
    first, costs = oracle_exits(loss), np.asarray(reach, np.float64)
    early = first < exit_index  # an exit that is taken for want of a better one is the last: never before
    return Waste(
        float(early.mean()),
        float(np.where(early, costs[exit_index] - costs[first], 0.0).mean()),
        float((early & (_taken(exit_index, loss) > _taken(first, loss))).mean()),
    )


def paired_difference(loss: Losses, other: Losses) -> tuple[float, float, float]:
    """The metric of one less that of another on the same samples, with its 95 % interval; see ``paired_interval``.

    Args:
        loss: [N], of the one.
        other: [N], of the other.
    """
    gained = np.subtract(other, loss, dtype=np.float64)
    return paired_interval(float(gained.sum()), float((gained**2).sum()), len(gained))


def paired_interval(total: float, squares: float, samples: int) -> tuple[float, float, float]:
    """Return the mean of N differences in [-1, 1] with its normal 95 % interval: (value, low, high).

    Where all differences are equal they say nothing of their spread, and the rule of three stands in: 3 / N on both
    sides.

    Args:
        total: sum of the differences.
        squares: sum of their squares.
        samples: N, at least 1.
    """
    value = total / samples
    variance = squares / samples - value**2
    half = _Z95 * math.sqrt(max(variance, 0.0) / samples) or 3 / samples
    return value, value - half, value + half


def _taken(exit_index: Exits, loss: Losses) -> Losses:
    return np.asarray(loss[exit_index, np.arange(len(exit_index))])
