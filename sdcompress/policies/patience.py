"""Leave when several exits in a row give the same answer (PABEE); from 8 exits on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sdcompress.policies._base import ExitPolicy, Float, Signals

__all__ = ["Patience"]


class Patience(ExitPolicy):
    """r / (r + 1), where r exits in a row up to this one give its answer; one threshold for all exits.

    Zhou et al., "BERT Loses Patience", NeurIPS 2020 (arXiv:2006.04152): leave after t + 1 equal answers in a row. With
    few exits r has few values, and the first exits can never leave: hence the least number of exits.
    """

    history: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    least_exits: ClassVar[int] = 8

    def score(self, exit_: int, signals: Sequence[Signals]) -> Float:
        """The length of the run of equal answers, as r / (r + 1)."""
        del exit_
        now = signals[-1]
        run, same = np.add(now.zeros(), np.float32(1)), now.agrees(now)
        for earlier in reversed(signals[:-1]):
            same = np.logical_and(same, earlier.agrees(now))
            run = np.add(run, same)
        length: Float = np.divide(run, np.add(run, np.float32(1)))
        return length
