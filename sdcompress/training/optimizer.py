"""Build the optimiser, choose the parameters that decay, and average the weights over the steps."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cached_property
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from sdcompress.schema import recipe
from sdcompress.training.sharding import is_sharded, local_value

__all__ = ["Ema", "build"]


def build(spec: recipe.Optimizer, parameters: Iterable[nn.Parameter], *, fused: bool = True) -> torch.optim.Optimizer:
    """Return the optimiser over all trainable parameters; vectors and scalars (biases, norms) are spared the decay.

    Args:
        spec: which, and its numbers.
        parameters: of the network and the method.
        fused: one pass over each parameter instead of several; torch has none for sharded weights.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    fused = fused and not any(is_sharded(parameter) for parameter in trained)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if spec.name == "sgd":
        nesterov = spec.nesterov and spec.momentum > 0
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused)


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
        self._followed, self._decay = net, decay

    @cached_property
    def _pairs(self) -> list[tuple[Tensor, Tensor, bool]]:
        # at the first update: when the copy is made, the weights are not sharded yet
        both = (self.net.state_dict().values(), self._followed.state_dict().values())
        pairs = [(local_value(average), local_value(current)) for average, current in zip(*both, strict=True)]
        return [(*pair, any(bool(torch.isinf(values).any()) for values in pair)) for pair in pairs]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the network after step ``step`` (from 0); infinite entries, such as a mask's, are copied."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for (
            average,
            current,
            infinite,
        ) in self._pairs:  # local parts, where the weights are sharded
            if not average.is_floating_point():
                average.copy_(current)
            elif infinite:  # between two infinities that are the same lies no number
                moved, finite = average.lerp(current, 1 - decay), torch.isfinite(average) & torch.isfinite(current)
                average.copy_(torch.where(finite, moved, current))
            else:
                average.lerp_(current, 1 - decay)
