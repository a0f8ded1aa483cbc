"""Bottleneck of BYOT: narrow, shrink to the deepest map's resolution in one convolution, widen, pool.

"Be Your Own Teacher" (Zhang et al., ICCV 2019, arXiv 1905.08094) draws it; layer sizes after the public code of
luanyunteng: 1 x 1 to a quarter of the final channels, k x k with stride k, 1 x 1 to the final channels, each with batch
norm and ReLU, then global average pooling. On ResNet-18 for 32 px it costs 7 % of the backbone's MACs. A map more than
8 times as wide as the deepest one (8 is the paper's largest k) is first average-pooled to 8 times, along each side no
further than to the deepest one's.
On tokens it is a layer norm, pooling and one hidden layer.
"""

from __future__ import annotations

from math import ceil

from torch import nn

from sdcompress.models.heads import _tokens
from sdcompress.models.heads._base import Head, Pool, channels, conv_norm_relu, pooled_vector, resolution

__all__ = ["Bottleneck"]

_LARGEST_KERNEL = 8


class Bottleneck(Head):
    """1 x 1, k x k with stride k, 1 x 1. Arguments: ``Head``; ``width`` caps the widest layer."""

    def __init__(
        self, shape: tuple[int, ...], outputs: tuple[int, ...], *, width: int, final_shape: tuple[int, ...], pool: Pool
    ) -> None:
        size = min(channels(final_shape), width)
        if len(shape) == 3:
            middle = max(1, size // 4)
            ratio = [max(1, a // b) for a, b in zip(shape[1:], resolution(final_shape), strict=True)]
            pooling = ceil(max(ratio) / _LARGEST_KERNEL)
            pooled = (min(pooling, ratio[0]), min(pooling, ratio[1]))
            kernel = (max(1, ratio[0] // pooling), max(1, ratio[1] // pooling))
            body: nn.Module = nn.Sequential(
                *([nn.AvgPool2d(pooled)] if pooling > 1 else []),
                *conv_norm_relu(shape[0], middle),
                *conv_norm_relu(middle, middle, kernel),
                *conv_norm_relu(middle, size),
                *pooled_vector(),
            )
        else:
            body = _tokens.pooled_mlp(channels(shape), size, pool)
        super().__init__(body, size, outputs)
