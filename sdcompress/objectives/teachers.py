"""Who teaches: a target made of the network's own exits, through which no gradient flows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["deepest", "ensemble"]


def deepest(exits: Sequence[Tensor]) -> Tensor:
    """The last exit's logits or features, detached.

    Args:
        exits: tensors from shallow to deep.
    """
    return exits[-1].detach()


def ensemble(exits: Sequence[Tensor]) -> Tensor:
    """The plain mean of all exits' logits or features, detached.

    Args:
        exits: E tensors of one shape, e.g. [B, K].
    """
    return torch.stack(tuple(exits)).mean(0).detach()
