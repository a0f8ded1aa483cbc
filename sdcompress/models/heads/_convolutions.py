"""Pieces of convolutional heads."""

from __future__ import annotations

from torch import nn

__all__ = ["conv_norm_relu", "pooled_vector", "separable", "separable_chain"]


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
