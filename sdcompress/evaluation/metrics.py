"""Scores of a classifier, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["accuracy", "calibration_error", "ece", "log_softmax", "nll", "softmax"]

Scores = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def log_softmax(logits: Scores, temperature: float = 1.0) -> Float64:
    """Log-probabilities [..., K] of logits [..., K] / temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    scaled -= np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    return np.asarray(scaled)


def softmax(logits: Scores, temperature: float = 1.0) -> Float64:
    """Probabilities [..., K] of logits [..., K] / temperature."""
    return np.exp(log_softmax(logits, temperature))


def accuracy(scores: Scores, labels: Labels) -> float:
    """Share of rows [N, K] whose largest score is the label [N]; the first of equal scores counts."""
    return float((scores.argmax(axis=-1) == labels).mean())


def nll(logits: Scores, labels: Labels, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood in nats of the labels [N] under softmax(logits / temperature) [N, K]."""
    return float(-log_softmax(logits, temperature)[np.arange(len(labels)), labels].mean())


def ece(probabilities: Scores, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error, see ``calibration_error``.

    Args:
        probabilities: [N, K].
        labels: int64 [N].
        bins: number of bins.
    """
    right = probabilities.argmax(axis=-1) == labels
    return calibration_error(probabilities.max(axis=-1), right, bins)


def calibration_error(confidences: Scores, right: npt.NDArray[np.bool_], bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (a, b] of confidence, weighted by their samples.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599), eq. 5; 15 bins as there.

    Args:
        confidences: the largest probability of each sample, [N].
        right: whether its class is the label, [N].
        bins: number of bins.
    """
    inside = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidences, side="left")
    gaps = np.bincount(inside, weights=confidences - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))
