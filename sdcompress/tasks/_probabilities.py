"""Probabilities of logits and how well they are calibrated, in float64."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.tasks._base import Prediction
from sdcompress.tasks._signals import Float

__all__ = ["Bin", "LogitPrediction", "calibration_error", "log_softmax", "reliability", "softmax"]

Scores = npt.NDArray[np.floating]
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


@dataclass(frozen=True)
class LogitPrediction(Prediction):
    """A prediction whose outputs are logits, float32 [B, K], of K named probabilities."""

    unit: ClassVar[str] = "probability"

    @property
    @abstractmethod
    def probabilities(self) -> Float:
        """float32 [B, K]."""

    @property
    def scaled_logits(self) -> Float64:
        """The logits in float64, divided by the temperature of the exit where it has one."""
        logits = self.outputs.astype(np.float64)
        if self.temperatures:
            logits /= np.asarray(self.temperatures)[self.exit_index][:, None]
        return logits

    def top(self, count: int = 5) -> tuple[tuple[tuple[str, float], ...], ...]:
        """For each of the B samples its most probable names, as (name, probability), the most probable first.

        Args:
            count: how many; at most all K are given.
        """
        probabilities = self.probabilities
        # of the logits: probabilities may round to equal ones, and the first would not be what is decided
        order = np.argsort(-self.outputs, axis=1, kind="stable")[:, :count]
        return tuple(
            tuple((self.task.outputs[k], float(row[k])) for k in best.tolist())
            for row, best in zip(probabilities, order, strict=True)
        )


class Bin(NamedTuple):
    """Samples whose confidence is in (low, high], with its mean and their metric."""

    low: float
    high: float
    samples: int
    confidence: float
    metric: float


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
