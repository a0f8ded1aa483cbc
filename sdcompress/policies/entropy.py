"""Leave when the entropy of the probabilities is small (BranchyNet)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sdcompress.policies._base import ExitPolicy, Float, Signals

__all__ = ["Entropy"]


class Entropy(ExitPolicy):
    """exp(-H(p)), one over the perplexity: 1 for a certain answer, 1/K for a guess among K.

    Teerapittayanon et al., "BranchyNet", ICPR 2016 (arXiv:1709.01686), leaves when H is at most a threshold: the same
    order of samples.
    """

    needs: ClassVar[tuple[str, ...]] = ("entropy",)
    formula: ClassVar[str] = "np.exp(-entropy)"

    def score(self, exit_: int, signals: Sequence[Signals]) -> Float:
        """One over the perplexity."""
        del exit_
        sure: Float = np.minimum(np.exp(np.negative(signals[-1]["entropy"])), np.float32(1))
        return sure
