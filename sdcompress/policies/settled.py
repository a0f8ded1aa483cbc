"""Exit when the decision has stopped moving from one exit to the next; for numbers, with 3 exits or more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sdcompress.policies._base import AGREEMENT, ExitPolicy, Float, Signals

__all__ = ["Settled"]


class Settled(ExitPolicy):
    """Score a sample by 1 / (1 + c), with c the change of its decision against the exit before, in units of ``step``.

    The first exit has no exit before it: its score is 0. For decisions that are no numbers c is 0 or 1. It is the idea
    of PABEE's patience for regression (Zhou et al., NeurIPS 2020, arXiv:2006.04152, section 3.2), with one comparison
    and a score that grows as the change gets smaller.
    """

    needs: ClassVar[tuple[str, ...]] = (AGREEMENT,)
    history: ClassVar[bool] = True
    least_exits: ClassVar[int] = 3

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Float:
        """Return 1 / (1 + c): NaN where a signal is not finite, 0 where only the decision is infinite."""
        del exit_index
        current = signals[-1]
        if len(signals) == 1:
            return current.zeros()
        steps = np.add(current.change(signals[-2]), current.zeros())
        score: Float = np.divide(np.float32(1), np.add(steps, np.float32(1)))
        return score
