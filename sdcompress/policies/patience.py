"""Exit when several exits in a row make the same decision (PABEE); for networks with 3 exits or more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sdcompress.policies._base import AGREEMENT, ExitPolicy, Float, Signals

__all__ = ["Patience"]


class Patience(ExitPolicy):
    """Score a sample by r / (r + 1) after r equal decisions in a row; one threshold for all exits.

    Zhou et al., "BERT Loses Patience", NeurIPS 2020 (arXiv:2006.04152): exit after t + 1 equal decisions in a row. With
    few exits r has few values, and so the choice of thresholds is coarse. The first decision has none before it that
    could agree: of two exits no sample would leave early, hence the least number of exits.
    """

    needs: ClassVar[tuple[str, ...]] = (AGREEMENT,)
    history: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    least_exits: ClassVar[int] = 3

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Float:
        """Return r / (r + 1), with r the number of equal decisions in a row."""
        del exit_index
        current = signals[-1]
        count, same = np.add(current.zeros(), np.float32(1)), current.agrees(current)
        for earlier in reversed(signals[:-1]):
            same = np.logical_and(same, earlier.agrees(current))
            count = np.add(count, same)
        score: Float = np.divide(count, np.add(count, np.float32(1)))
        return score
