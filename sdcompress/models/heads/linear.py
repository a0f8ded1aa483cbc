"""Pooling and one linear layer: the cheapest exit.

Maps: global average pooling. Tokens: layer norm, then the mean or the class token. It has no width to cap.
"""

from __future__ import annotations

from torch import nn

from sdcompress.models.heads import _tokens
from sdcompress.models.heads._base import Head, Pool, channels, pooled_vector

__all__ = ["Linear"]


class Linear(Head):
    """A linear probe on the map that the backbone has anyway. Arguments: ``Head``."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: tuple[int, ...],
        *,
        width: int,  # noqa: ARG002 - every head is called alike
        final_shape: tuple[int, ...],  # noqa: ARG002
        pool: Pool,
    ) -> None:
        size = channels(shape)
        body = nn.Sequential(*pooled_vector()) if len(shape) == 3 else _tokens.pooled(size, pool)
        super().__init__(body, size, outputs)
