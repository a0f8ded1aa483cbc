"""Separable convolutions of Self-Distillation: one stride-2 SepConv block for each halving that is left, then pooling.

"Self-Distillation: Towards Efficient and Compact Neural Networks" (Zhang et al., TPAMI 2021), after the authors' code
(ArchipLab self-distillation). Ours differs where it must: the number of blocks follows from the resolutions, not from
the stage's number. On ResNet-18 for 32 px it costs 4 % of the backbone's MACs.
On tokens it is a layer norm, pooling and one hidden layer.
"""

from __future__ import annotations

from torch import nn

from sdcompress.models.heads import _tokens
from sdcompress.models.heads._base import Head, Pool, channels, halvings, pooled_vector, separable_chain

__all__ = ["SeparableConvolutions"]


class SeparableConvolutions(Head):
    """A chain of SepConv blocks. Arguments: ``Head``; ``width`` caps every block but the tapped map's own channels."""

    def __init__(
        self, shape: tuple[int, ...], outputs: tuple[int, ...], *, width: int, final_shape: tuple[int, ...], pool: Pool
    ) -> None:
        size = min(channels(final_shape), width)
        if len(shape) == 3:
            chain = separable_chain(shape[0], size, halvings(shape, final_shape))
            body: nn.Module = nn.Sequential(*chain, *pooled_vector())
        else:
            body = _tokens.pooled_mlp(channels(shape), size, pool)
        super().__init__(body, size, outputs)
