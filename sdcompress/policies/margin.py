"""Leave when the best class leads the second by much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sdcompress.policies._base import ExitPolicy, Float, Signals

__all__ = ["Margin"]


class Margin(ExitPolicy):
    """p(1) - p(2), the lead of the largest probability over the second largest."""

    needs: ClassVar[tuple[str, ...]] = ("max_prob", "second_prob")
    formula: ClassVar[str] = "max_prob - second_prob"

    def score(self, exit_: int, signals: Sequence[Signals]) -> Float:
        """The lead."""
        del exit_
        lead: Float = np.subtract(signals[-1]["max_prob"], signals[-1]["second_prob"])
        return lead
