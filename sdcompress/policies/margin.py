"""Leave when the best class leads the second by much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdcompress.policies._base import ExitPolicy, Float, Signals

__all__ = ["Margin"]


class Margin(ExitPolicy):
    """p(1) - p(2), the lead of the largest probability over the second largest."""

    def score(self, exit_: int, signals: Sequence[Signals]) -> Float:
        """The lead."""
        del exit_
        lead: Float = np.subtract(signals[-1].best, signals[-1].second)
        return lead
