"""Optimiser and learning rate: which parameters decay, and the rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from sdcompress.schema import recipe
from sdcompress.training.sharding import is_shared_out

__all__ = ["build", "rate"]


def build(spec: recipe.Optimizer, parameters: Iterable[nn.Parameter], *, fused: bool = True) -> torch.optim.Optimizer:
    """The optimiser over all trainable parameters; vectors and scalars (biases, norms) are spared the decay.

    Args:
        spec: which, and its numbers.
        parameters: of the network and the method.
        fused: one pass over each parameter instead of several; torch has none for weights that are shared out.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    fused = fused and not any(is_shared_out(parameter) for parameter in trained)
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if spec.name == "sgd":
        nesterov = spec.nesterov and spec.momentum > 0
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused)


def rate(spec: recipe.Schedule, *, lr: float, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of step ``step`` (from 0): linear warm-up, then the schedule over what is left.

    Cosine: Loshchilov & Hutter 2017 (SGDR), eq. 5, one cycle from ``lr`` to ``final * lr``.
    """
    epoch = step / steps_per_epoch
    if epoch < spec.warmup:
        return lr * (step + 1) / math.ceil(spec.warmup * steps_per_epoch)
    if spec.name == "multistep":
        return float(lr * spec.gamma ** sum(epoch >= milestone for milestone in spec.milestones))
    if spec.name == "cosine":
        share = (epoch - spec.warmup) / max(epochs - spec.warmup, 1e-12)
        return lr * (spec.final + (1 - spec.final) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))
    return lr
