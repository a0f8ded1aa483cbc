"""Fit one temperature for an exit's outputs by Newton's method on the negative log-likelihood."""

from __future__ import annotations

import math

from sdcompress.tasks import Array, Task

__all__ = ["fit_temperature"]

LEAST, MOST = 0.1, 10.0
_STEP = 1e-4  # of the difference quotients, relative: both their errors are then about 1e-8


def fit_temperature(task: Task, outputs: Array, targets: Array) -> float:
    """Return the T that minimises the task's NLL of outputs / T, or 1.0 where none lowers it.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The NLL of logits is convex in
    1 / T. Its derivatives are difference quotients. An exit that makes no mistakes would want T = 0, which makes all
    confidences equal, and one that guesses T = infinity: a minimum outside [0.1, 10] counts as none.

    Args:
        task: with ``scaled_by_temperature``.
        outputs: [N, ...], N > 0, finite.
        targets: [N, ...].
    """

    def nll(inverse: float) -> float:
        return task.nll(outputs, targets, 1 / inverse)

    least, most = 1 / MOST, 1 / LEAST
    inverse = 1.0
    for _ in range(60):
        below, at, above = (nll(inverse * factor) for factor in (1 - _STEP, 1.0, 1 + _STEP))
        slope, curvature = (above - below) / 2, above - 2 * at + below
        least, most = (least, inverse) if slope > 0 else (inverse, most)
        newton = inverse * (1 - _STEP * slope / curvature) if curvature > 0 else math.inf
        following = newton if least < newton < most else math.sqrt(least * most)
        if abs(following - inverse) < 1e-7 * inverse:
            break
        inverse = following
    temperature = 1 / inverse
    inside = LEAST * 1.001 < temperature < MOST / 1.001
    return temperature if inside and nll(inverse) < nll(1.0) else 1.0
