"""A pyramid over a network's maps: down to the shallow ones, up to the deep ones, and a classifier at its end.

One round of BiFPN (Tan et al., "EfficientDet", CVPR 2020, arXiv 1911.09070), as FRSKD uses it for a teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcompress.errors import RecipeError
from sdcompress.objectives.features import pool

__all__ = ["Pyramid"]


class Pyramid(nn.Module):
    """Refined maps, and outputs made of the deepest of them.

    Args:
        maps: (C, H, W) of each map, shallow to deep.
        outputs: shape of one sample's outputs, (K,).
        width: channels of all levels.

    Raises:
        RecipeError: if a map is no picture, or outputs are no vector.
    """

    def __init__(self, maps: Sequence[tuple[int, ...]], outputs: tuple[int, ...], *, width: int) -> None:
        super().__init__()
        if any(len(shape) != 3 for shape in maps):
            raise RecipeError(
                "This method needs maps that are pictures, and the backbone gives tokens.",
                allowed="a convolutional backbone",
                next_step="choose another backbone in model.name, or another method",
            )
        if len(outputs) != 1:
            raise RecipeError(
                f"This method's pyramid gives one vector for each sample, and the task's outputs have shape {outputs}.",
                allowed="a task with outputs [B, K]",
                next_step="choose another method: sdcompress list methods",
            )
        levels = len(maps)
        self.lateral = nn.ModuleList(nn.Conv2d(shape[0], width, 1) for shape in maps)
        self.down = nn.ModuleList(_Fusion(2, width) for _ in range(levels - 1))
        self.up = nn.ModuleList(_Fusion(3 if i < levels - 2 else 2, width) for i in range(levels - 1))
        self.classifier = nn.Linear(width, *outputs)

    def forward(self, maps: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Refine maps and classify them.

        Args:
            maps: E tensors [B, C_i, H_i, W_i], shallow to deep.

        Returns:
            E tensors [B, width, H_i, W_i], and outputs [B, K].
        """
        sides = [lateral(feature) for lateral, feature in zip(self.lateral, maps, strict=True)]
        lowered = [sides[-1]]
        for side, fuse in zip(reversed(sides[:-1]), self.down, strict=True):
            lowered.insert(0, fuse(side, _resized(lowered[0], side)))
        refined = [lowered[0]]
        for level, fuse in enumerate(self.up, start=1):
            # at the deepest level what came down is the side itself
            parts = [sides[level]] if level == len(sides) - 1 else [sides[level], lowered[level]]
            refined.append(fuse(*parts, _resized(refined[-1], sides[level])))
        logits: Tensor = self.classifier(refined[-1].mean((2, 3)))
        return tuple(refined), logits


class _Fusion(nn.Module):
    """A weighted mean of maps of one size, then a depthwise separable convolution with norm and ReLU."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.convolution = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.Conv2d(width, width, 1, bias=False),
            nn.GroupNorm(gcd(8, width), width),
            nn.ReLU(),
        )

    def forward(self, *maps: Tensor) -> Tensor:
        shares = F.softplus(self.weights)
        shares = shares / shares.sum()
        fused = torch.stack([share * feature for share, feature in zip(shares, maps, strict=True)]).sum(0)
        output: Tensor = self.convolution(fused)
        return output


def _resized(feature: Tensor, like: Tensor) -> Tensor:
    """Nearest neighbours up, the mean of cells down."""
    size = (like.shape[2], like.shape[3])
    if feature.shape[2] > size[0]:
        return pool(pool(feature, 2, size[0]), 3, size[1])
    return F.interpolate(feature, size=size, mode="nearest")
