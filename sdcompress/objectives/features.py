"""Distances of features, and what brings two features or maps to one shape.

Distances are means over batch *and* features: published code that sums over the batch or takes an unsquared norm has
weights that change with the batch size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Adapters", "attention", "cells", "l2", "masked_l2", "pool"]


def l2(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference, mean over all elements.

    Args:
        student: features or outputs, [B, ...].
        teacher: [B, ...].
    """
    return F.mse_loss(student, teacher)


def masked_l2(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference where either is positive, mean over all elements.

    Where neither is active nothing is learnt. From the public code of Exit-Ensemble Distillation (arXiv 2104.00299).

    Args:
        student: [B, D].
        teacher: [B, D].
    """
    active = (student > 0) | (teacher > 0)
    return (active * (student - teacher).square()).mean()


class Adapters(nn.Module):
    """One linear map per exit to the width of the last one; the identity where the widths agree.

    Only for training: adapters are neither exported nor counted.

    Args:
        widths: D_i of each exit, shallow to deep.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        last = widths[-1]
        self.maps = nn.ModuleList(nn.Identity() if width == last else nn.Linear(width, last) for width in widths)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All exits' features at one width.

        Args:
            features: E tensors of shape [B, D_i].

        Returns:
            E tensors of shape [B, D_E]; the last is ``features[-1]`` itself.
        """
        return tuple(adapt(feature) for adapt, feature in zip(self.maps, features, strict=True))


def attention(feature_map: Tensor) -> Tensor:
    """Return where a map is active: the mean of squares over its channels, each sample's scaled to length 1.

    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928, section 3.1.

    Args:
        feature_map: [B, C, H, W].

    Returns:
        [B, H W].
    """
    return F.normalize(feature_map.square().mean(1).flatten(1), dim=1)


def cells(feature_map: Tensor, side: int = 7) -> Tensor:
    """Return the local features of a map, averaged to at most ``side * side`` of them.

    Args:
        feature_map: [B, C, H, W], or [B, N, C] of a token model, whose tokens are cells already.
        side: the most cells along each side.

    Returns:
        [B, cells, C].
    """
    if feature_map.dim() == 3:
        return pool(feature_map, 1, side * side)
    return pool(pool(feature_map, 2, side), 3, side).flatten(2).transpose(1, 2)


def pool(values: Tensor, axis: int, most: int) -> Tensor:
    """Average neighbours along one axis to at most ``most`` values; shorter axes stay as they are.

    The bins are those of adaptive average pooling, but as a product of matrices, whose gradient is deterministic on a
    GPU.

    Args:
        values: any shape.
        axis: which axis.
        most: largest length of that axis in the result.
    """
    length = values.shape[axis]
    if length <= most:
        return values
    return (values.movedim(axis, -1) @ _bins(length, most, values).T).movedim(-1, axis)


def _bins(length: int, count: int, like: Tensor) -> Tensor:
    """Row i averages the i-th of ``count`` bins of ``length`` values: [count, length]."""
    position = torch.arange(length, device=like.device)
    bins = torch.arange(count, device=like.device).unsqueeze(1)
    inside = (position >= bins * length // count) & (position < ((bins + 1) * length + count - 1) // count)
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)
