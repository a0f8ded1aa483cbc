"""Where samples leave, what they get and what it costs, from what every exit says of every sample.

E exits, N samples. ``left`` is int64 [N], the exit at which each sample leaves; ``right`` is bool [E, N], whether each
exit's answer is the label; ``reach`` is float [E], what it costs to get to each exit (ms or MACs).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Waste",
    "accuracy_at",
    "exit_shares",
    "oracle_exits",
    "overthinking",
    "paired_difference",
    "paired_interval",
    "shares_by_class",
]

Exits = npt.NDArray[np.int64]
Right = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

_Z95 = 1.959964


class Waste(NamedTuple):
    """What samples lose by going on after an exit that has them right.

    Attributes:
        wasteful: share of samples that an exit before theirs has right.
        wasted: cost after their first right exit, mean over all samples.
        destructive: share of samples that are right earlier and wrong at their exit.
    """

    wasteful: float
    wasted: float
    destructive: float


def accuracy_at(left: Exits, right: Right) -> float:
    """Share of samples that are right where they leave."""
    return float(_taken(left, right).mean())


def exit_shares(left: Exits, exits: int) -> Float64:
    """Share of samples that leave at each exit, [E]."""
    return np.bincount(left, minlength=exits) / len(left)


def shares_by_class(left: Exits, labels: Exits, exits: int, classes: int) -> Float64:
    """Share of each class's samples that leave at each exit, [K, E]; NaN for a class without samples."""
    counts = np.bincount(labels * exits + left, minlength=classes * exits).reshape(classes, exits)
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def oracle_exits(right: Right) -> Exits:
    """The first exit that has each sample right, int64 [N]; the last where none has."""
    return np.where(right.any(axis=0), right.argmax(axis=0), len(right) - 1)


def overthinking(left: Exits, right: Right, reach: npt.ArrayLike) -> Waste:
    """How much is computed after an answer was right already, and how often it is spoiled.

    Kaya, Hong and Dumitras, "Shallow-Deep Networks: Understanding and Mitigating Network Overthinking", ICML 2019
    (arXiv:1810.07052), who look at the whole network: ``left`` is then the last exit for all.

    Args:
        left: where the samples leave.
        right: whether each exit is right.
        reach: [E], cost until each exit.
    """
    first, costs = oracle_exits(right), np.asarray(reach, np.float64)
    early = first < left  # an exit that is taken for want of a right one is the last: never before
    return Waste(
        float(early.mean()),
        float(np.where(early, costs[left] - costs[first], 0.0).mean()),
        float((early & ~_taken(left, right)).mean()),
    )


def paired_difference(mine: Right, theirs: Right) -> tuple[float, float, float]:
    """Accuracy of one less that of another on the same samples, with its 95 % interval; see ``paired_interval``.

    Args:
        mine: [N], whether each answer of the one is right.
        theirs: [N], of the other.
    """
    return paired_interval(int((mine & ~theirs).sum()), int((theirs & ~mine).sum()), len(mine))


def paired_interval(gained: int, lost: int, samples: int) -> tuple[float, float, float]:
    """The mean of N differences in {-1, 0, 1} with its normal 95 % interval: (value, low, high).

    Where all differences are equal they say nothing of their spread, and the rule of three stands in: 3 / N on both
    sides.

    Args:
        gained: samples that only the one has right.
        lost: samples that only the other has right.
        samples: N, at least 1.
    """
    value = (gained - lost) / samples
    variance = (gained + lost) / samples - value**2
    half = _Z95 * math.sqrt(max(variance, 0.0) / samples) or 3 / samples
    return value, value - half, value + half


def _taken(left: Exits, right: Right) -> Right:
    return np.asarray(right[left, np.arange(len(left))])
