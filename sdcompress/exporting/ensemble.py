"""Export exits that also hear the exits before them: the geometric ensemble of Zero-Time-Waste, without its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GeometricEnsemble"]


class GeometricEnsemble(nn.Module):
    """The logits of exit k become the mean of log softmax over the exits 0 to k.

    Wołczyk et al., "Zero Time Waste", NeurIPS 2021 (arXiv:2106.05409). There each class and exit has a fitted weight;
    here all are one, so that nothing is fitted. The softmax of the result is the normalised geometric mean of the
    exits' probabilities. It costs K additions for each exit, and segments hand on the sum so far.

    Args:
        net: images [B, C, H, W] -> E tensors [B, K].
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """E tensors [B, K]."""
        found: list[Tensor] = []
        total: Tensor | None = None
        for logits in self.net(images):
            said = torch.log_softmax(logits, dim=1)
            total = said if total is None else total + said
            found.append(total / (len(found) + 1))
        return tuple(found)
