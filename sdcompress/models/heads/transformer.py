"""FastBERT's student classifier: narrow, one self-attention, pool, a hidden layer with tanh.

"FastBERT" (Liu et al., ACL 2020, arXiv 2004.02178), table 1 and the authors' code: 128 channels, 2 attention heads.
A map's cells are its tokens.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sdcompress.models.heads._base import Head, Pool, channels
from sdcompress.models.heads._tokens import TokenPool

__all__ = ["Transformer"]

_WIDTH, _HEADS = 128, 2


class Transformer(Head):
    """A small transformer on the tokens. Arguments: ``Head``; ``width`` caps its 128 channels."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: tuple[int, ...],
        *,
        width: int,
        final_shape: tuple[int, ...],  # noqa: ARG002 - every head is called alike
        pool: Pool,
    ) -> None:
        size = max(_HEADS, min(_WIDTH, width) // _HEADS * _HEADS)
        super().__init__(_Attention(channels(shape), size, "mean" if len(shape) == 3 else pool), size, outputs)


class _Attention(nn.Module):
    """[B, C, H, W] or [B, N, C] to [B, D]."""

    def __init__(self, inputs: int, size: int, pool: Pool) -> None:
        super().__init__()
        self.narrow = nn.Linear(inputs, size)
        self.query_key_value = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.pool = TokenPool(pool)
        self.hidden = nn.Sequential(nn.Linear(size, size), nn.Tanh())

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        tokens = self.narrow(features.flatten(2).transpose(1, 2) if features.dim() == 4 else features)
        query, key, value = self.query_key_value(tokens).unflatten(2, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen = None if mask is None else mask[:, None, None, :] != 0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        hidden: Tensor = self.hidden(self.pool(self.out(attended.transpose(1, 2).flatten(2)), mask))
        return hidden
