"""Exponential moving average of the weights: what is evaluated and exported when the recipe asks for it."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

__all__ = ["Ema"]


Net = TypeVar("Net", bound=nn.Module)


class Ema(Generic[Net]):
    """A second network whose weights and running statistics trail those of the first.

    The decay rises from 0.1 as (1 + t) / (10 + t), so that short runs are not held back by their random start
    (as TensorFlow's ExponentialMovingAverage does with ``num_updates``).

    Args:
        net: the network to follow.
        decay: share of the average that is kept in each step.
    """

    def __init__(self, net: Net, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(requires_grad=False)
        self._decay = decay
        self._pairs = list(zip(self.net.state_dict().values(), net.state_dict().values(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the network after step ``step`` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for average, current in self._pairs:
            if average.is_floating_point():
                average.lerp_(current, 1 - decay)
            else:
                average.copy_(current)
