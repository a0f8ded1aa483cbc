"""Scores of a classifier from its logits, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["accuracy", "ece", "nll", "softmax"]

Logits = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


def softmax(logits: Logits, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities [..., K] of logits [..., K]."""
    scaled = logits.astype(np.float64) / temperature
    exponents = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))


def accuracy(scores: Logits, labels: Labels) -> float:
    """Share of rows [N, K] whose largest score is the label [N]; the first of equal scores counts."""
    return float((scores.argmax(axis=-1) == labels).mean())


def nll(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood in nats of the labels [N] under softmax(logits / temperature) [N, K]."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(axis=-1)) - scaled[np.arange(len(labels)), labels]).mean())


def ece(probabilities: Logits, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over equal-width bins of confidence.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3, 15 bins (a, b] as in their code.

    Args:
        probabilities: [N, K].
        labels: int64 [N].
        bins: number of bins over (0, 1].
    """
    confidences = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == labels
    inside = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(inside, weights=confidences - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
