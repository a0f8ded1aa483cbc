"""Build the optimiser, and choose the parameters that decay."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from sdcompress.schema import recipe
from sdcompress.training.sharding import is_sharded

__all__ = ["build"]


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
