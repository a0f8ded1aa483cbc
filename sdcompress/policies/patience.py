"""Leave when several exits in a row give the same answer (PABEE); from 8 exits on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from sdcompress.errors import UsageError
from sdcompress.policies._base import ExitPolicy, Float, Signals

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Patience"]

LEAST_EXITS = 8


class Patience(ExitPolicy):
    """r / (r + 1), where r exits in a row up to this one give its answer; one threshold for all exits.

    Zhou et al., "BERT Loses Patience", NeurIPS 2020 (arXiv:2006.04152): leave after t + 1 equal answers in a row. With
    few exits r has few values, and the first exits can never leave: hence the least number of exits.
    """

    history: ClassVar[bool] = True
    shared: ClassVar[bool] = True

    @classmethod
    def fit(cls, signals: Sequence[Signals], right: npt.NDArray[np.bool_]) -> Self:
        """Refuse a network of few exits."""
        del right
        if len(signals) < LEAST_EXITS:
            raise UsageError(
                f"The policy 'patience' counts equal answers in a row, and this network has {len(signals)} exits.",
                allowed=f"at least {LEAST_EXITS} exits",
                next_step="choose another policy, for example max_prob, or train with more exits (exits.auto)",
            )
        return cls()

    def score(self, exit_: int, signals: Sequence[Signals]) -> Float:
        """The length of the run of equal answers, as r / (r + 1)."""
        del exit_
        now = signals[-1]
        number = np.multiply(now.best, np.float32(0))  # NaN stays NaN
        run, same = np.add(number, np.float32(1)), np.equal(now.answer, now.answer)
        for earlier in reversed(signals[:-1]):
            same = np.logical_and(same, np.equal(earlier.answer, now.answer))
            run = np.add(run, same)
        length: Float = np.divide(run, np.add(run, np.float32(1)))
        return length
