"""Heads for tokens [B, N, C]: a norm, pooling, and where the head has width, a hidden layer."""

from __future__ import annotations

from torch import Tensor, nn

from sdcompress.models.heads._base import Pool

__all__ = ["pooled", "pooled_mlp"]


class _TokenPool(nn.Module):
    """[B, N, C] to [B, C]: the mean over all tokens, or the first (the class token)."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0] if self.pool == "token" else tokens.mean(1)


def pooled(size: int, pool: Pool) -> nn.Module:
    """Norm and pooling. The norm is needed: transformers norm their residual stream only at its end."""
    return nn.Sequential(nn.LayerNorm(size), _TokenPool(pool))


def pooled_mlp(size: int, width: int, pool: Pool) -> nn.Module:
    """Norm, pooling, and a hidden layer of ``width`` with GELU: what heads made for maps become on tokens."""
    return nn.Sequential(pooled(size, pool), nn.Linear(size, width), nn.GELU())
