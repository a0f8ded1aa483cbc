"""Exit when the entropy of the probabilities is small (BranchyNet)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sdcompress.policies._base import ExitPolicy, Float, Signals

__all__ = ["Entropy"]


class Entropy(ExitPolicy):
    """Score a sample by exp(-H(p)), the inverse of the perplexity: 1 if certain, 1/K for K equal probabilities.

    Teerapittayanon et al., "BranchyNet", ICPR 2016 (arXiv:1709.01686), have a threshold on H: the same order of
    samples.
    """

    needs: ClassVar[tuple[str, ...]] = ("entropy",)
    formula: ClassVar[str] = "np.exp(-entropy)"

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Float:
        """Return the inverse of the perplexity."""
        del exit_index
        score: Float = np.minimum(np.exp(np.negative(signals[-1]["entropy"])), np.float32(1))
        return score
