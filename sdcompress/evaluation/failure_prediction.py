"""How well a score tells right answers from wrong ones: what decides whether leaving early pays, calibrated or not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["aurc", "auroc"]

Scores = npt.NDArray[np.floating]
Right = npt.NDArray[np.bool_]


def auroc(scores: Scores, right: Right) -> float | None:
    """P(the score of a right answer > that of a wrong one), a tie counted as half: Mann and Whitney's U / (n+ n-).

    Args:
        scores: [N], higher is surer.
        right: [N], whether the answer is right.

    Returns:
        0.5 for a score that knows nothing; None where all answers are right or all are wrong.
    """
    positives = int(right.sum())
    negatives = len(right) - positives
    if not positives or not negatives:
        return None
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # from 1, the mean of those that tie
    above = ranks[group][right].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def aurc(scores: Scores, right: Right) -> float | None:
    """Area under the risk-coverage curve: the error among the n surest answers, averaged over n = 1..N.

    Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019
    (arXiv:1805.08206); lower is better. Answers of one score come in no order: the error within them counts as spread
    evenly, which is its mean over all orders.

    Args:
        scores: [N], higher is surer.
        right: [N], whether the answer is right.

    Returns:
        None where there is no answer.
    """
    if not len(right):
        return None
    _, group, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    errors = np.bincount(group, weights=~right, minlength=len(counts))
    wrong = np.cumsum(np.repeat(errors / counts, counts))
    return float((wrong / np.arange(1, len(right) + 1)).mean())
