"""What every head is: a body that turns a map into one vector, and a linear layer on it."""

from __future__ import annotations

from math import isqrt
from typing import Literal

from torch import Tensor, nn

from sdcompress.errors import RecipeError

__all__ = ["Head", "Pool", "channels", "halvings", "resolution"]

Pool = Literal["mean", "token"]


class Head(nn.Module):
    """An exit's part of the network. A head's file gives it a body.

    Its constructor is called with ``(shape, outputs, *, width, final_shape, pool)``: shape of the tapped map, (C, H, W)
    or (N, C); shape of one sample's outputs, (K,); the most channels it may have; shape of the backbone's deepest map;
    how tokens become one vector.

    Args:
        body: of a map [B, C, H, W], or of tokens [B, N, C] and their padding mask (or None), to [B, D].
        feature_size: D.
        outputs: shape of one sample's outputs, (K,).

    Raises:
        RecipeError: if outputs are no vector.
    """

    def __init__(self, body: nn.Module, feature_size: int, outputs: tuple[int, ...]) -> None:
        super().__init__()
        if len(outputs) != 1:
            raise RecipeError(
                f"This head gives one vector for each sample, and the task's outputs have shape {outputs}.",
                allowed="a task with outputs [B, K]",
                next_step="choose another head in exits.head: sdcompress list heads",
            )
        self.feature_size = feature_size
        self.body = body
        self.classifier = nn.Linear(feature_size, *outputs)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs [B, K], and the feature [B, D] that they are made of, of a map.

        Args:
            features: [B, C, H, W] or [B, N, C].
            mask: [B, N], 0 at tokens that are padding; None: none are.
        """
        feature = self.body(features) if features.dim() == 4 else self.body(features, mask)
        return self.classifier(feature), feature


def channels(shape: tuple[int, ...]) -> int:
    """C of a map (C, H, W) or of tokens (N, C)."""
    return shape[0] if len(shape) == 3 else shape[1]


def resolution(shape: tuple[int, ...]) -> tuple[int, int]:
    """(H, W) of a map; of N tokens, the largest square that they fill (a class token stands beside it)."""
    return (shape[1], shape[2]) if len(shape) == 3 else (isqrt(shape[0]), isqrt(shape[0]))


def halvings(shape: tuple[int, ...], final_shape: tuple[int, ...]) -> int:
    """How often a map must be halved to be about as small as the deepest one."""
    ratio = max(a // b for a, b in zip(resolution(shape), resolution(final_shape), strict=True))
    return max(0, ratio.bit_length() - 1)
