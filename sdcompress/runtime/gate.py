"""Who leaves at an exit: the policy's score against the threshold. Calibration takes its scores from here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import ExitPolicy, Signals

__all__ = ["Gate", "gates"]

# from the signals of the exits so far to the rows that leave, bool [B]
Gate = Callable[[Sequence[Signals]], npt.NDArray[np.bool_]]


def gates(policy: ExitPolicy, thresholds: Sequence[float]) -> tuple[Gate, ...]:
    """One gate for each exit but the last.

    A row leaves when its score is at least the threshold, both float32. NaN is not at least anything.
    """
    return tuple(_gate(policy, exit_, threshold) for exit_, threshold in enumerate(thresholds))


def _gate(policy: ExitPolicy, exit_: int, threshold: float) -> Gate:
    # rounded to float32, a threshold just above 1 would become 1 and fire
    least = np.float32(threshold if threshold <= 1 else math.inf)

    def leaves(signals: Sequence[Signals]) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = np.greater_equal(policy.score(exit_, signals), least)
        return found

    return leaves
