"""Scores of a classifier, written down once more for tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sdcompress.tasks._probabilities import calibration_error, log_softmax

Scores = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


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
