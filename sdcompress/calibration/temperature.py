"""One temperature for an exit's logits, by Newton's method on the negative log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sdcompress.tasks._probabilities import nll

__all__ = ["fit_temperature"]

LEAST, MOST = 0.1, 10.0
_ROWS = 4096  # at a time: float64 copies of all logits would be the largest thing in memory


def fit_temperature(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """The T that minimises the NLL of softmax(logits / T), or 1.0 where none lowers it.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The NLL is convex in 1 / T. An exit
    that makes no mistakes would want T = 0, which makes all confidences equal, and one that guesses T = infinity: a
    minimum outside [0.1, 10] counts as none.

    Args:
        logits: [N, K], N > 0, finite.
        labels: [N].
    """
    least, most = 1 / MOST, 1 / LEAST
    inverse = 1.0
    for _ in range(60):
        slope, curvature = _derivatives(logits, labels, inverse)
        least, most = (least, inverse) if slope > 0 else (inverse, most)
        newton = inverse - slope / curvature if curvature > 0 else math.inf
        following = newton if least < newton < most else math.sqrt(least * most)
        if abs(following - inverse) < 1e-7 * inverse:
            break
        inverse = following
    temperature = 1 / inverse
    inside = LEAST * 1.001 < temperature < MOST / 1.001
    return temperature if inside and nll(logits, labels, temperature) < nll(logits, labels) else 1.0


def _derivatives(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], inverse: float) -> tuple[float, float]:
    """First and second derivative of the summed NLL by 1 / T: its logits' mean less the label's, and their variance."""
    slope = curvature = 0.0
    for shifted, chosen in _blocks(logits, labels):
        weights = np.exp(shifted * inverse)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * shifted).sum(axis=1)
        slope += float((mean - chosen).sum())
        curvature += float(((weights * shifted**2).sum(axis=1) - mean**2).sum())
    return slope, curvature


def _blocks(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """A block's logits less the largest of each row, in float64, and the label's among them."""
    for start in range(0, len(labels), _ROWS):
        block = logits[start : start + _ROWS].astype(np.float64)
        block -= block.max(axis=1, keepdims=True)
        yield block, block[np.arange(len(block)), labels[start : start + _ROWS]]
