"""Build the optimiser: which parameters decay, rates of heads and blocks; and average the weights over the steps."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from sdcompress.models.multiexit import MultiExit
from sdcompress.schema import recipe
from sdcompress.training.sharding import is_sharded, local_value

__all__ = ["Ema", "build", "depths", "rate_factors"]

# the first number in a name with those that follow it at once, and blocks numbered inside of a stage
_BLOCK = re.compile(r"(?:[^.]+\.)*?\d+(?:\.\d+)*(?:\.(?:blocks|layers?)\.\d+)*(?=\.)")


def build(
    spec: recipe.Optimizer,
    parameters: Iterable[nn.Parameter],
    factors: Mapping[nn.Parameter, float] | None = None,
    *,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Return the optimiser over all trainable parameters; vectors and scalars (biases, norms) are spared the decay.

    Args:
        spec: which, and its numbers.
        parameters: of the network and the method.
        factors: of the rate of some parameters, 1 for others; each group keeps its own as ``lr_scale``.
        fused: one pass over each parameter instead of several; torch has none for sharded weights.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    fused = fused and not any(is_sharded(parameter) for parameter in trained)
    by_factor: dict[float, list[nn.Parameter]] = {}
    for parameter in trained:
        by_factor.setdefault((factors or {}).get(parameter, 1.0), []).append(parameter)
    groups = [
        {
            "params": [parameter for parameter in members if (parameter.ndim > 1) == decays],
            "weight_decay": spec.weight_decay if decays else 0.0,
            "lr": spec.lr * factor,
            "lr_scale": factor,
        }
        for factor, members in (by_factor or {1.0: []}).items()
        for decays in (True, False)
    ]
    if spec.name == "sgd":
        nesterov = spec.nesterov and spec.momentum > 0
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused)


def rate_factors(spec: recipe.Optimizer, net: MultiExit, state: nn.Module) -> dict[nn.Parameter, float]:
    """Return the factor of each parameter's rate: one for heads, and for the backbone by its depth.

    Block k of n has ``layer_decay ** (n + 1 - k)``; what lies before the blocks counts as block 0, what lies behind
    them has 1 (Bao et al., "BEiT", ICLR 2022, arXiv 2106.08254, section 3.2). Where only the classifier lies behind
    them, the last block has 1, and block k of n has ``layer_decay ** (n - k)``.

    Args:
        spec: of the recipe.
        net: the network.
        state: of the method.
    """
    of_heads = (spec.head_lr or spec.lr) / spec.lr
    named = dict(net.backbone.named_parameters())
    body = {name: one for name, one in named.items() if name not in net.classifier}
    last = [one for name, one in named.items() if name in net.classifier]
    blocks = depths(body)
    top = max(blocks.values(), default=0)
    factors = {body[name]: spec.layer_decay ** (top - depth) for name, depth in blocks.items()}
    return {**factors, **dict.fromkeys((*last, *net.heads.parameters(), *state.parameters()), of_heads)}


def depths(names: Iterable[str]) -> dict[str, int]:
    """Return the number of the block that each parameter belongs to, by the numbers in their names.

    Args:
        names: of parameters, in the order of the network; ``blocks.3.1.conv.weight`` is of the block ``blocks.3.1``.
    """
    ordered = list(names)
    keys = [found[0] if (found := _BLOCK.match(name)) else None for name in ordered]
    numbers = {key: at for at, key in enumerate(dict.fromkeys(key for key in keys if key), start=1)}
    ends = max((at for at, key in enumerate(keys) if key), default=-1)
    result, current = {}, 0
    for at, (name, key) in enumerate(zip(ordered, keys, strict=True)):
        current = numbers[key] if key else len(numbers) + 1 if at > ends and numbers else current
        result[name] = current
    return result


Net = TypeVar("Net", bound=nn.Module)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


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
        # local parts of sharded weights; at the first update: when the copy is made, they are not sharded yet
        both = (net.state_dict(keep_vars=True).values() for net in (self.net, self._followed))
        # a tensor that has several names moves once
        tensors = {id(average): (average, current) for average, current in zip(*both, strict=True)}
        pairs = [
            (local_value(average.detach()), local_value(current.detach())) for average, current in tensors.values()
        ]
        return [(*pair, any(bool(torch.isinf(values).any()) for values in pair)) for pair in pairs]

    def use_batch_statistics(self) -> None:
        """Normalise by the batch where the followed network does, and by the running statistics where that does.

        A teacher needs it: early on, running statistics trail the weights, and what they give grows without bound.
        """
        for average, followed in zip(self.net.modules(), self._followed.modules(), strict=True):
            if isinstance(average, _BATCH_NORMS):
                average.training = followed.training
                average.momentum = 0.0  # running statistics are averaged, not updated

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the network after step ``step`` (from 0); infinite entries, such as a mask's, are copied."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for average, current, infinite in self._pairs:
            if not average.is_floating_point():
                average.copy_(current)
            elif infinite:  # between two infinities that are the same lies no number
                moved, finite = average.lerp(current, 1 - decay), torch.isfinite(average) & torch.isfinite(current)
                average.copy_(torch.where(finite, moved, current))
            else:
                average.lerp_(current, 1 - decay)
