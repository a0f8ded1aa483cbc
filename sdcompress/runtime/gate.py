"""Who leaves at an exit: the policy's score against the threshold. Calibration takes its scores from here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sdcompress.policies._base import ExitPolicy, Gate

__all__ = ["Gate", "gates"]


def gates(policy: ExitPolicy, thresholds: Sequence[float]) -> tuple[Gate, ...]:
    """One gate for each exit but the last.

    A row leaves when its score is at least the threshold, both float32. NaN is not at least anything.
    """
    # rounded to float32, a threshold just above 1 would become 1 and fire
    least = [np.float32(threshold if threshold <= 1 else math.inf) for threshold in thresholds]
    return tuple(policy.gate(exit_, each) for exit_, each in enumerate(least))
