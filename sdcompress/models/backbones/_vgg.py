"""VGG with batch norm for 32 px images: the convolutions of the paper, one linear classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

__all__ = ["VGGS", "vgg"]

# name: convolutions of each stage
VGGS = {
    "vgg11_bn": (1, 1, 2, 2, 2),
    "vgg13_bn": (2, 2, 2, 2, 2),
    "vgg16_bn": (2, 2, 3, 3, 3),
    "vgg19_bn": (2, 2, 4, 4, 4),
}


def vgg(depths: Sequence[int], *, classes: int, channels: int, dropout: float = 0.0) -> nn.Sequential:
    """Simonyan and Zisserman, ICLR 2015 (arXiv 1409.1556).

    Args:
        depths: convolutions of each of the five stages; a stage ends in 2 x 2 max pooling.
        classes: K.
        dropout: share of the final feature that is dropped, 0 = no such layer.
        channels: C of the images, which are at least 32 px wide.
    """
    layers, inputs = OrderedDict[str, nn.Module](), channels
    for i, (width, depth) in enumerate(zip((64, 128, 256, 512, 512), depths, strict=True), start=1):
        stage: list[nn.Module] = []
        for _ in range(depth):
            stage += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        layers[f"stage{i}"] = nn.Sequential(*stage, nn.MaxPool2d(2))
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["fc"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)
