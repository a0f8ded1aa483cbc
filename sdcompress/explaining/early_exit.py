"""Compute exit shares, oracle, overthinking, AUROC and AURC from the scores and losses of all exits.

There are E exits and N samples. ``exit_index`` is int64 [N], the exit of each sample. ``loss`` is float [E, N] in
[0, 1], of each exit's decision. ``reach`` is float [E], the cost up to each exit in ms or MACs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Overthinking",
    "aurc",
    "auroc",
    "exit_shares",
    "losses_at",
    "oracle_exits",
    "overthinking",
]

Exits = npt.NDArray[np.int64]
Losses = npt.NDArray[np.floating]
Scores = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]


class Overthinking(NamedTuple):
    """Cost and loss of computation after the first exit with the lowest loss.

    Attributes:
        wasteful: share of samples whose loss is lowest at an exit before theirs.
        wasted: cost after that exit, mean over all samples.
        destructive: share of samples whose loss is higher at their exit than at an earlier one.
    """

    wasteful: float
    wasted: float
    destructive: float


def losses_at(exit_index: Exits, loss: Losses) -> Losses:
    """Return the loss of each sample at its exit, [N]."""
    return np.asarray(loss[exit_index, np.arange(len(exit_index))])


def exit_shares(exit_index: Exits, exits: int) -> Float64:
    """Return the share of samples at each exit, [E]."""
    return np.bincount(exit_index, minlength=exits) / len(exit_index)


def oracle_exits(loss: Losses) -> Exits:
    """Return the first exit with the lowest loss of each sample, int64 [N]; the last exit if every loss is 1."""
    return np.where((loss < 1).any(axis=0), loss.argmin(axis=0), len(loss) - 1)


def overthinking(exit_index: Exits, loss: Losses, reach: npt.ArrayLike) -> Overthinking:
    """Return the cost of computation after the lowest loss, and the share of samples whose loss rises again.

    Kaya, Hong and Dumitras, "Shallow-Deep Networks: Understanding and Mitigating Network Overthinking", ICML 2019
    (arXiv:1810.07052) measure the whole network: ``exit_index`` is then the last exit for all samples.

    Args:
        exit_index: [N], exit of each sample.
        loss: [E, N], of each exit.
        reach: [E], cost up to each exit.
    """
    first, costs = oracle_exits(loss), np.asarray(reach, np.float64)
    early = first < exit_index
    return Overthinking(
        float(early.mean()),
        float(np.where(early, costs[exit_index] - costs[first], 0.0).mean()),
        float((early & (losses_at(exit_index, loss) > losses_at(first, loss))).mean()),
    )


def auroc(scores: Scores, loss: Losses) -> float | None:
    """Return the AUROC of a score for losses of 0 against losses of 1: Mann and Whitney's U / (n+ n-), ties as half.

    Args:
        scores: [N], higher is more confident.
        loss: [N], 0 or 1.

    Returns:
        0.5 for a score without information; None if all losses are equal, or one is neither 0 nor 1.
    """
    correct = loss == 0
    positives = int(correct.sum())
    negatives = len(correct) - positives
    if not positives or not negatives or not (correct | (loss == 1)).all():
        return None
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # from 1; ties share their mean rank
    above = ranks[group][correct].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def aurc(scores: Scores, loss: Losses) -> float | None:
    """Return the area under the risk-coverage curve: the mean loss of the n most confident samples, mean over n = 1..N.

    Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019
    (arXiv:1805.08206); lower is better. Samples of equal score count with their mean loss, which is the mean over
    all orders.

    Args:
        scores: [N], higher is more confident.
        loss: [N] in [0, 1].

    Returns:
        None without samples.
    """
    if not len(loss):
        return None
    _, group, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    sums = np.bincount(group, weights=loss, minlength=len(counts))
    cumulative = np.cumsum(np.repeat(sums / counts, counts))
    return float((cumulative / np.arange(1, len(loss) + 1)).mean())
