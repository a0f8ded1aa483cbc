"""Pooling and a hidden layer with tanh: the classifier that BERT and its like end in.

"BERT" (Devlin et al., NAACL 2019, arXiv 1810.04805) calls the layer its pooler, RoBERTa its classification head. The
pooled vector is normed first, because not all encoders norm what goes from layer to layer.
"""

from __future__ import annotations

from torch import nn

from sdcompress.models.heads._base import Head, Pool, channels, pooled_vector
from sdcompress.models.heads._tokens import TokenPool, Tokens

__all__ = ["TanhMlp"]


class TanhMlp(Head):
    """Linear, tanh, linear on the pooled map. Arguments: ``Head``; ``width`` caps the hidden layer."""

    def __init__(
        self, shape: tuple[int, ...], outputs: tuple[int, ...], *, width: int, final_shape: tuple[int, ...], pool: Pool
    ) -> None:
        size = min(channels(final_shape), width)
        hidden = (nn.LayerNorm(channels(shape)), nn.Linear(channels(shape), size), nn.Tanh())
        body = nn.Sequential(*pooled_vector(), *hidden) if len(shape) == 3 else Tokens(TokenPool(pool), *hidden)
        super().__init__(body, size, outputs)
