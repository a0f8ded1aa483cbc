"""The geometric ensemble of Zero Time Waste, without its weights: exit k averages log-probabilities of exits 0..k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["GeometricEnsemble"]


class GeometricEnsemble(nn.Module):
    """Replaces the logits of exit k by the mean of the log softmax of all kept exits up to k.

    Exits with pruned heads are not in the file and do not count.

    Wołczyk et al., "Zero Time Waste", NeurIPS 2021 (arXiv:2106.05409). There each class and exit has a fitted weight;
    here all weights are one. The softmax of the result is the normalised geometric mean of the exits' probabilities. It
    costs K additions for each exit; segments pass the partial sum on.

    Args:
        net: images [B, C, H, W] -> tensors [B, K].
        kept: positions of the E kept exits, rising; None: all.
    """

    def __init__(self, net: nn.Module, kept: Sequence[int] | None = None) -> None:
        super().__init__()
        self.net, self.kept = net, kept

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The ensembles' logits, E tensors [B, K]."""
        ensembles: list[Tensor] = []
        total: Tensor | None = None
        logits = self.net(images)
        for position in range(len(logits)) if self.kept is None else self.kept:
            log_probabilities = torch.log_softmax(logits[position], dim=1)
            total = log_probabilities if total is None else total + log_probabilities
            ensembles.append(total / (len(ensembles) + 1))
        return tuple(ensembles)
