"""Build the optimiser: which parameters decay, and the rate of heads and of the backbone's blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from sdcompress.models.multiexit import MultiExit
from sdcompress.schema import recipe
from sdcompress.training.sharding import is_sharded

__all__ = ["build", "depths", "rate_factors"]

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
    them has 1 (Bao et al., "BEiT", ICLR 2022, arXiv 2106.08254, section 3.2).

    Args:
        spec: of the recipe.
        net: the network.
        state: of the method.
    """
    of_heads = (spec.head_lr or spec.lr) / spec.lr
    last = set(net.backbone.get_submodule(net.output_layer).parameters())
    body = {name: one for name, one in net.backbone.named_parameters() if one not in last}
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
