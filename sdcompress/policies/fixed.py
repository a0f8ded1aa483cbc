"""Everybody leaves at one and the same exit: the truncated network, which every policy must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sdcompress.policies._base import ExitPolicy, Float, Signals

__all__ = ["Fixed"]


class Fixed(ExitPolicy):
    """A score of 1 for every sample, so that a threshold lets all leave or none.

    The calibration then chooses the exit, and a certificate is for the network truncated there.
    """

    formula: ClassVar[str] = "1.0"

    def score(self, exit_: int, signals: Sequence[Signals]) -> Float:
        """1, but NaN for a sample whose first signal is not a number."""
        del exit_
        same: Float = np.add(signals[-1].zeros(), np.float32(1))
        return same
