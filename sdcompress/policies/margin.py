"""Exit when the largest probability is far above the second largest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sdcompress.policies._base import ExitPolicy, Float, Signals

__all__ = ["Margin"]


class Margin(ExitPolicy):
    """Score a sample by p(1) - p(2), the largest probability less the second largest."""

    needs: ClassVar[tuple[str, ...]] = ("max_prob", "second_prob")
    formula: ClassVar[str] = "max_prob - second_prob"

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Float:
        """Return the difference of the two largest probabilities."""
        del exit_index
        score: Float = np.subtract(signals[-1]["max_prob"], signals[-1]["second_prob"])
        return score
