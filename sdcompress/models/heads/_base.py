"""What every head is: a body that makes a feature of a map, a vector or a map again, and a linear layer on it."""

from __future__ import annotations

from math import isqrt
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from sdcompress.errors import RecipeError
from sdcompress.models.output_layer import feature_size

__all__ = [
    "Head",
    "Pool",
    "channels",
    "conv_norm_relu",
    "halvings",
    "pooled_vector",
    "resolution",
    "separable",
    "separable_chain",
]

Pool = Literal["mean", "token"]


class Head(nn.Module):
    """An exit's part of the network. A head's file gives it a body.

    Its constructor is called with ``(shape, outputs, *, width, final_shape, pool)``: shape of the tapped map, (C, H, W)
    or (N, C); shape of one sample's outputs, (K,) or (K, H, W); the most channels it may have; shape of the backbone's
    deepest map; how tokens become one vector.

    Args:
        body: of a map [B, C, H, W], or of tokens [B, N, C] and their padding mask (or None), to [B, D]; of a dense head
            [B, C, h, w] to [B, D, h, w].
        feature_size: D.
        outputs: shape of one sample's outputs, (K,); of a dense head (K, H, W).

    Raises:
        RecipeError: if outputs have another shape than the head gives.
    """

    dense: ClassVar[bool] = False
    """Whether it gives outputs for every pixel, (K, H, W)."""

    def __init__(self, body: nn.Module, feature_size: int, outputs: tuple[int, ...]) -> None:
        super().__init__()
        if len(outputs) != (3 if self.dense else 1):
            gives = "outputs of every pixel" if self.dense else "one vector for each sample"
            raise RecipeError(
                f"This head gives {gives}, and the task's outputs have shape {outputs}.",
                allowed="a task with outputs [B, K, H, W]" if self.dense else "a task with outputs [B, K]",
                next_step=f"choose another head in exits.head, such as {'bottleneck' if self.dense else 'dense'}: "
                "sdcompress list heads",
            )
        self.body = body
        self._size = outputs[1:]
        self.classifier = nn.Conv2d(feature_size, outputs[0], 1) if self.dense else nn.Linear(feature_size, outputs[0])

    @property
    def feature_size(self) -> int:
        """Return D."""
        return feature_size(self.classifier)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs [B, K] or [B, K, H, W] of a map, and the feature [B, D] that they are made of.

        Dense outputs are upsampled to the size of the targets. Their feature is the mean over the map, as the last
        exit's is.

        Args:
            features: [B, C, H, W] or [B, N, C].
            mask: [B, N], 0 at tokens that are padding; None: none are.
        """
        feature = self.body(features) if features.dim() == 4 else self.body(features, mask)
        outputs = self.classifier(feature)
        if not self.dense:
            return outputs, feature
        upsampled = F.interpolate(outputs, size=self._size, mode="bilinear", align_corners=False)
        return upsampled, feature.mean((2, 3))


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


def conv_norm_relu(inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1)) -> list[nn.Module]:
    """Convolution whose stride is its kernel, batch norm, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=kernel, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def pooled_vector() -> list[nn.Module]:
    """Global average pooling, [B, C, H, W] to [B, C]."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def separable(inputs: int, outputs: int, *, stride: int, middle: int) -> list[nn.Module]:
    """SepConv: depthwise 3 x 3 - pointwise - norm - ReLU, twice; the first depthwise has the stride."""
    return [
        *_depthwise_pointwise(inputs, middle, stride),
        *_depthwise_pointwise(middle, outputs, 1),
    ]


def separable_chain(inputs: int, outputs: int, count: int) -> list[nn.Module]:
    """``count`` SepConv blocks that halve the map and double its channels up to ``outputs``; for 0, one at stride 1."""
    sizes = [min(outputs, inputs * 2**i) for i in range(1, max(1, count))] + [outputs]
    stride, blocks = (2 if count else 1), []
    for size in sizes:
        blocks += separable(inputs, size, stride=stride, middle=min(inputs, outputs))
        inputs = size
    return blocks


def _depthwise_pointwise(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
