"""A path of thresholds from the safest, nobody leaves, to ever earlier exits; made before anything is certified."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sdcompress.calibration.thresholds import NEVER, Search, at_price, leave

__all__ = ["threshold_path"]

Confidences = npt.NDArray[np.float32]

_PRICES = 48
_COST_STEP = 0.01  # of the whole network's cost, between neighbours on the path


def threshold_path(
    confidences: Confidences, right: npt.NDArray[np.bool_], stage_ms: npt.ArrayLike
) -> tuple[tuple[float, ...], ...]:
    """Thresholds in the order in which they will be tested; no threshold of a step is above that of the step before.

    A mistake is an answer that the last exit has right and the exit has not. What an exit corrects is not set against
    it here: on a few thousand samples that difference is mostly luck, and thresholds that lean on it fail the test.

    The corners are minima of cost + price * mistakes for falling prices of a mistake, found by coordinate descent from
    the corner before (the cost/accuracy frontier of Laufer-Goldshtein et al., "Efficiently Controlling Multiple Risks
    with Pareto Testing", arXiv:2210.07913). Between corners the samples that leave more are let go in the order of
    their confidences, in steps of about a hundredth of the whole network's cost.

    Args:
        confidences: float32 [E-1, N], of all exits but the last.
        right: bool [E, N], whether each exit's answer is right; without labels, whether it is the last exit's.
        stage_ms: [E], above 0: from one exit to the next.

    Returns:
        [J][E-1], each exactly representable in float32; the first step is ``NEVER`` at every exit.
    """
    costs = np.cumsum(np.asarray(stage_ms, np.float64))
    search = Search(confidences, (right | ~right[-1]).astype(np.int64), costs, allowed=0)
    path = [np.full(len(confidences), NEVER, np.float32)]
    for price in np.geomspace(1e3, 1e-2, _PRICES) * costs[-1]:
        corner = np.minimum(path[-1], search.descend(path[-1], at_price(float(price))))
        path += _between(path[-1], corner, confidences, costs)
    # samples of equal confidence leave together: a smaller step between them is none
    return tuple(dict.fromkeys(tuple(float(value) for value in step) for step in path))


def _between(
    old: npt.NDArray[np.float32],
    new: npt.NDArray[np.float32],
    confidences: Confidences,
    costs: npt.NDArray[np.float64],
) -> list[npt.NDArray[np.float32]]:
    """The steps from one corner to the next, the last of them ``new``; none where they are the same."""
    if np.array_equal(old, new):
        return []
    saved = float(costs[leave(confidences, old)].mean() - costs[leave(confidences, new)].mean())
    count = max(1, math.ceil(saved / (_COST_STEP * float(costs[-1]))))
    inside = [
        -np.sort(-values[(values >= high) & (values < low)])
        for values, low, high in zip(confidences, old, new, strict=True)
    ]
    steps = []
    for position in range(1, count):
        step = old.copy()
        for exit_, values in enumerate(inside):
            if taken := len(values) * position // count:
                step[exit_] = values[taken - 1]
        steps.append(step)
    return [*steps, new]
