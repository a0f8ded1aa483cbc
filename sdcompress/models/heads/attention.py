"""Attention, then separable convolutions: SCAN's mask on the map before the SepConv chain.

A = sigmoid(up(SepConv_s2(f))), exit(f) = chain(f * A): "SCAN" (Zhang et al., NeurIPS 2019, arXiv 1906.03951), with the
bilinear up-sampling of the TPAMI 2021 version and the authors' code (ArchipLab self-distillation), which puts a second
batch norm and ReLU behind the SepConv; we keep both. On tokens it is a layer norm, pooling and one hidden layer.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sdcompress.models.heads import _tokens
from sdcompress.models.heads._base import Head, Pool, channels, halvings, pooled_vector, separable, separable_chain

__all__ = ["AttentionConvolutions"]


class AttentionConvolutions(Head):
    """A spatial and channel mask, then a chain of SepConv blocks. Arguments: ``Head``; ``width`` caps both."""

    def __init__(
        self, shape: tuple[int, ...], outputs: tuple[int, ...], *, width: int, final_shape: tuple[int, ...], pool: Pool
    ) -> None:
        size = min(channels(final_shape), width)
        if len(shape) == 3:
            mask = _Mask(shape, middle=min(shape[0], width))
            chain = separable_chain(shape[0], size, halvings(shape, final_shape))
            body: nn.Module = nn.Sequential(mask, *chain, *pooled_vector())
        else:
            body = _tokens.pooled_mlp(channels(shape), size, pool)
        super().__init__(body, size, outputs)


class _Mask(nn.Module):
    """f * sigmoid(up(ReLU(BN(SepConv_s2(f))))) of maps [B, C, H, W]."""

    def __init__(self, shape: tuple[int, ...], *, middle: int) -> None:
        super().__init__()
        inputs = shape[0]
        self.size = shape[1:]
        self.attention = nn.Sequential(
            *separable(inputs, inputs, stride=2, middle=middle), nn.BatchNorm2d(inputs), nn.ReLU()
        )

    def forward(self, features: Tensor) -> Tensor:
        attention = F.interpolate(self.attention(features), size=self.size, mode="bilinear", align_corners=False)
        return features * attention.sigmoid()
