"""Scores of a classifier, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Bin", "accuracy", "calibration_error", "ece", "flips", "log_softmax", "nll", "reliability", "softmax"]

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


def flips(runs: Sequence[Scores], reference: Scores, *, margin: float = -1.0) -> int:
    """How many rows get another class than in the reference, in any run.

    Args:
        runs: logits [N, K] of the same N rows, computed in several ways.
        reference: logits [N, K].
        margin: rows whose two largest reference logits are at most this far apart are not counted; negative: all count.
    """
    top2 = np.sort(reference, axis=1)[:, -2:]
    changed = np.any([logits.argmax(1) != reference.argmax(1) for logits in runs], axis=0)
    return int((changed & (top2[:, -1] - top2[:, 0] > margin)).sum())


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


def calibration_error(confidences: Scores, correct: npt.NDArray[Any], bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (a, b] of confidence, weighted by their samples.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599), eq. 5; 15 bins as there.

    Args:
        confidences: the largest probability of each sample, [N].
        correct: whether its class is the label, [N]; or 1 - loss.
        bins: number of bins.
    """
    inside = _bin_of(confidences, bins)
    gaps = np.bincount(inside, weights=confidences - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


class Bin(NamedTuple):
    """Samples whose confidence is in (low, high], with its mean and their metric."""

    low: float
    high: float
    samples: int
    confidence: float
    score: float


def reliability(confidences: Scores, correct: npt.NDArray[Any], bins: int = 15) -> tuple[Bin, ...]:
    """The bins of ``calibration_error`` that hold samples, by rising confidence (a reliability diagram).

    Args:
        confidences: the largest probability of each sample, [N].
        correct: whether its class is the label, [N]; or 1 - loss.
        bins: number of bins.
    """
    inside, edges = _bin_of(confidences, bins), np.linspace(0, 1, bins + 1)
    counts = np.bincount(inside, minlength=bins)
    confidence, score = (
        np.bincount(inside, weights=values, minlength=bins) / np.maximum(counts, 1) for values in (confidences, correct)
    )
    return tuple(
        Bin(float(edges[k]), float(edges[k + 1]), int(counts[k]), min(float(confidence[k]), 1.0), float(score[k]))
        for k in np.flatnonzero(counts)
    )


def _bin_of(confidences: Scores, bins: int) -> npt.NDArray[np.intp]:
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidences, side="left")
