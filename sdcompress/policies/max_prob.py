"""Leave when the largest probability is large (BranchyNet's successors: MSDNet, SDN): the default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from sdcompress.policies._base import ExitPolicy, Float, Signals

__all__ = ["MaxProb"]


class MaxProb(ExitPolicy):
    """max_c p(c). Huang et al., "Multi-Scale Dense Networks", ICLR 2018 (arXiv:1703.09844)."""

    needs: ClassVar[tuple[str, ...]] = ("max_prob",)
    formula: ClassVar[str] = "max_prob"

    def score(self, exit_: int, signals: Sequence[Signals]) -> Float:
        """The largest probability."""
        del exit_
        return signals[-1]["max_prob"]
