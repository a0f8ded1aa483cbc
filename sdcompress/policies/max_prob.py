"""Exit when the largest probability is large (MSDNet, Shallow-Deep Networks): the default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from sdcompress.policies._base import ExitPolicy, Float, Signals

__all__ = ["MaxProb"]


class MaxProb(ExitPolicy):
    """Score a sample by max_c p(c). Huang et al., "Multi-Scale Dense Networks", ICLR 2018 (arXiv:1703.09844)."""

    needs: ClassVar[tuple[str, ...]] = ("max_prob",)
    formula: ClassVar[str] = "max_prob"

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Float:
        """Return the largest probability."""
        del exit_index
        return signals[-1]["max_prob"]
