"""Export exits that also hear the exits before them: the geometric ensemble of Zero-Time-Waste, without its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["GeometricEnsemble"]


class GeometricEnsemble(nn.Module):
    """The logits of exit k become the mean of log softmax over the exits 0 to k, of those that are kept.

    An exit that is pruned has no head in the file, so that it cannot be heard.

    Wołczyk et al., "Zero Time Waste", NeurIPS 2021 (arXiv:2106.05409). There each class and exit has a fitted weight;
    here all are one, so that nothing is fitted. The softmax of the result is the normalised geometric mean of the
    exits' probabilities. It costs K additions for each exit, and segments hand on the sum so far.

    Args:
        net: images [B, C, H, W] -> tensors [B, K].
        kept: positions of the E exits that are kept, rising; None: all.
    """

    def __init__(self, net: nn.Module, kept: Sequence[int] | None = None) -> None:
        super().__init__()
        self.net, self.kept = net, kept

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """E tensors [B, K]."""
        found: list[Tensor] = []
        total: Tensor | None = None
        every = self.net(images)
        for position in range(len(every)) if self.kept is None else self.kept:
            said = torch.log_softmax(every[position], dim=1)
            total = said if total is None else total + said
            found.append(total / (len(found) + 1))
        return tuple(found)
