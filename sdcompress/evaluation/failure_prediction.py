"""Measure how well a score ranks samples by loss, which decides whether early exit pays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["aurc", "auroc"]

Scores = npt.NDArray[np.floating]
Losses = npt.NDArray[np.floating]


def auroc(scores: Scores, loss: Losses) -> float | None:
    """P(a sample without loss has a higher score than one with), a tie counted as half: Mann and Whitney's U / (n+ n-).

    Args:
        scores: [N], higher is surer.
        loss: [N], 0 or 1.

    Returns:
        0.5 for a score that knows nothing; None where all losses are equal, or one is neither 0 nor 1.
    """
    right = loss == 0
    positives = int(right.sum())
    negatives = len(right) - positives
    if not positives or not negatives or not (right | (loss == 1)).all():
        return None
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # from 1, the mean of those that tie
    above = ranks[group][right].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def aurc(scores: Scores, loss: Losses) -> float | None:
    """Area under the risk-coverage curve: the mean loss of the n surest samples, averaged over n = 1..N.

    Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019
    (arXiv:1805.08206); lower is better. Samples of one score come in no order: the loss within them counts as spread
    evenly, which is its mean over all orders.

    Args:
        scores: [N], higher is surer.
        loss: [N] in [0, 1].

    Returns:
        None where there is no sample.
    """
    if not len(loss):
        return None
    _, group, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    sums = np.bincount(group, weights=loss, minlength=len(counts))
    lost = np.cumsum(np.repeat(sums / counts, counts))
    return float((lost / np.arange(1, len(loss) + 1)).mean())
