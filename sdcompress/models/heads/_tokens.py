"""Heads for tokens [B, N, C]: a norm, pooling, and where the head has width, a hidden layer."""

from __future__ import annotations

from torch import Tensor, nn

from sdcompress.models.heads._base import Pool

__all__ = ["TokenPool", "Tokens", "pooled", "pooled_mlp"]


class TokenPool(nn.Module):
    """[B, N, C] to [B, C]: the mean over all tokens that are no padding, or the first (the class token)."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors; mask is [B, N], 0 at padding."""
        if self.pool == "token":
            return tokens[:, 0]
        if mask is None:
            return tokens.mean(1)
        weights = mask.to(tokens.dtype)[:, :, None]
        return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


class Tokens(nn.Sequential):
    """Modules in a row; the one that pools is given the mask too."""

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, C], and the mask [B, N] or None, to [B, D]."""
        features = tokens
        for module in self:
            features = module(features, mask) if isinstance(module, TokenPool | Tokens) else module(features)
        return features


def pooled(size: int, pool: Pool) -> nn.Module:
    """Norm and pooling. The norm is needed: transformers norm their residual stream only at its end."""
    return Tokens(nn.LayerNorm(size), TokenPool(pool))


def pooled_mlp(size: int, width: int, pool: Pool) -> nn.Module:
    """Norm, pooling, and a hidden layer of ``width`` with GELU: what heads made for maps become on tokens."""
    return Tokens(pooled(size, pool), nn.Linear(size, width), nn.GELU())
