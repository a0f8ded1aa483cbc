"""Residual networks for small images: a 3 x 3 stem and no pooling before the stages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["RESNETS", "resnet"]

# name: channels of each stage before expansion, blocks of each stage, whether blocks are 1 x 1, 3 x 3, 1 x 1
RESNETS = {
    "resnet8": ((16, 32, 64), (1, 1, 1), False),
    "resnet18": ((64, 128, 256, 512), (2, 2, 2, 2), False),
    "resnet34": ((64, 128, 256, 512), (3, 4, 6, 3), False),
    "resnet50": ((64, 128, 256, 512), (3, 4, 6, 3), True),
}


def resnet(
    widths: Sequence[int], depths: Sequence[int], *, bottleneck: bool, classes: int, channels: int, dropout: float = 0.0
) -> nn.Sequential:
    """He et al., CVPR 2016 (arXiv 1512.03385), with the stem that papers use on CIFAR.

    Args:
        widths: channels of each stage before expansion; every stage but the first halves the map.
        depths: blocks of each stage.
        bottleneck: blocks of 1 x 1, 3 x 3, 1 x 1 that expand four times, instead of two 3 x 3.
        classes: K.
        dropout: share of the final feature that is dropped, 0 = no such layer.
        channels: C of the images.
    """
    layers = OrderedDict[str, nn.Module]()
    layers["conv1"] = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
    layers["bn1"] = nn.BatchNorm2d(widths[0])
    layers["relu"] = nn.ReLU()
    inputs = widths[0]
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        outputs = 4 * width if bottleneck else width
        blocks = []
        for j in range(depth):
            stride = 2 if i > 1 and j == 0 else 1
            path = _bottleneck(inputs, width, stride) if bottleneck else _basic(inputs, width, stride)
            blocks.append(_Residual(path, inputs, outputs, stride))
            inputs = outputs
        layers[f"layer{i}"] = nn.Sequential(*blocks)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["fc"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)


class _Residual(nn.Module):
    def __init__(self, path: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.path = path
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.relu(self.path(features) + self.shortcut(features))
        return output


def _basic(inputs: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
    )


def _bottleneck(inputs: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 4 * width, 1, bias=False),
        nn.BatchNorm2d(4 * width),
    )
