"""Sum the losses of exits, and make detached teachers of their outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from torch import Tensor

__all__ = ["deepest", "ensemble", "total"]


def total(terms: Iterable[Tensor]) -> Tensor:
    """Return the sum of one scalar loss per exit, added from shallow to deep.

    Args:
        terms: scalars, at least one. The order is kept, so that a method whose weights are 0 or 1 gives the very bits
            of the plain sum.
    """
    return reduce(torch.add, terms)


def deepest(exits: Sequence[Tensor]) -> Tensor:
    """Return the last exit's logits or features, detached.

    Args:
        exits: tensors from shallow to deep.
    """
    return exits[-1].detach()


def ensemble(exits: Sequence[Tensor]) -> Tensor:
    """Return the plain mean of all exits' logits or features, detached.

    Args:
        exits: E tensors of one shape, e.g. [B, K].
    """
    return torch.stack(tuple(exits)).mean(0).detach()
