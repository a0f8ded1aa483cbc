"""Measure how well a score ranks samples by loss, which decides whether early exit pays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["aurc", "auroc"]

Scores = npt.NDArray[np.floating]
Losses = npt.NDArray[np.floating]


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
