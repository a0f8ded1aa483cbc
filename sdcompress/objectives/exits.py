"""Sums over exits."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor

__all__ = ["total"]


def total(terms: Iterable[Tensor]) -> Tensor:
    """The sum of one scalar loss per exit, added from shallow to deep.

    Args:
        terms: scalars, at least one. The order is kept, so that a method whose weights are 0 or 1 gives the very bits
            of the plain sum.
    """
    return reduce(torch.add, terms)
