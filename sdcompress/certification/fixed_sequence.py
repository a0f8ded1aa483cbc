"""Fixed-sequence testing and conformal risk control over a sequence of thresholds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Outcome", "conformal_risk_control", "fixed_sequence"]


class Outcome(NamedTuple):
    """What came of a sequence of tests.

    Attributes:
        rejected: how many of the hypotheses are rejected: the first so many. 0: none.
        p_values: of the hypotheses that were tested: the rejected ones, then the one that was not, if there is one.
    """

    rejected: int
    p_values: tuple[float, ...]


def fixed_sequence(p_values: Iterable[float], delta: float) -> Outcome:
    """Test hypotheses in a fixed order, each at the whole delta; stop at the first that is not rejected.

    Angelopoulos et al., "Learn then Test" (arXiv:2110.01052), section 2.3: the probability that any of the rejected
    hypotheses is true is at most delta, however many there are, because the first true one must be rejected for that.
    What may be used is the last that was *rejected*. Public code has shipped the one at which the test stopped, whose
    loss is not under control.

    Args:
        p_values: one for each hypothesis, in order; taken one by one, so that none is computed after the stop.
        delta: the probability of an error, in (0, 1).
    """
    tested: list[float] = []
    for p_value in p_values:
        tested.append(p_value)
        if not p_value <= delta:  # also NaN stops
            return Outcome(len(tested) - 1, tuple(tested))
    return Outcome(len(tested), tuple(tested))


def conformal_risk_control(losses: npt.NDArray[np.floating], alpha: float) -> int:
    """Return how many settings of a sequence, safest first, keep the *expected* loss at or below alpha.

    Angelopoulos et al., "Conformal Risk Control" (arXiv:2208.02814), theorem 1, with losses of at most 1:
    n / (n + 1) R + 1 / (n + 1) <= alpha. The mean is over calibrations too: a single calibration may lose more, and a
    good part of them do. The theorem asks for losses that never fall along the row; they are made so, sample by sample,
    by the largest loss so far, which counts a sample that was once lost as lost.

    Args:
        losses: [J, N], each at most 1, of J settings on N exchangeable samples.
        alpha: the bound.

    Returns:
        The number of settings that may be used, 0 to J: the first so many.
    """
    settings, samples = losses.shape
    rising = np.maximum.accumulate(losses, axis=0).astype(np.float64)
    bounds = (rising.sum(axis=1) + 1) / (samples + 1)
    broken = np.flatnonzero(bounds > alpha)
    return int(broken[0]) if len(broken) else settings
