"""Build the networks of `cifar`: ResNets, VGGs and wide ResNets made for images of 32 pixels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["RESNETS", "VGGS", "VGG_WIDTHS", "resnet", "scaled", "vgg", "wide_resnet"]


def scaled(widths: Sequence[int], factor: float) -> tuple[int, ...]:
    """Return the numbers of channels times a factor, rounded, at least 1."""
    return tuple(max(1, round(factor * width)) for width in widths)


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
    return _classifying(layers, inputs, classes, dropout)


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


VGG_WIDTHS = (64, 128, 256, 512, 512)
# name: convolutions of each stage
VGGS = {
    "vgg11_bn": (1, 1, 2, 2, 2),
    "vgg13_bn": (2, 2, 2, 2, 2),
    "vgg16_bn": (2, 2, 3, 3, 3),
    "vgg19_bn": (2, 2, 4, 4, 4),
}


def vgg(
    depths: Sequence[int], widths: Sequence[int], *, classes: int, channels: int, dropout: float = 0.0
) -> nn.Sequential:
    """Simonyan and Zisserman, ICLR 2015 (arXiv 1409.1556).

    Args:
        depths: convolutions of each of the five stages; a stage ends in 2 x 2 max pooling.
        widths: channels of each stage.
        classes: K.
        dropout: share of the final feature that is dropped, 0 = no such layer.
        channels: C of the images, which are at least 32 px wide.
    """
    layers, inputs = OrderedDict[str, nn.Module](), channels
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        stage: list[nn.Module] = []
        for _ in range(depth):
            stage += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        layers[f"stage{i}"] = nn.Sequential(*stage, nn.MaxPool2d(2))
    return _classifying(layers, inputs, classes, dropout)


def wide_resnet(depth: int, widen: int, *, classes: int, channels: int, dropout: float = 0.0) -> nn.Sequential:
    """Zagoruyko and Komodakis, BMVC 2016 (arXiv 1605.07146).

    Args:
        depth: 6 n + 4 layers, n blocks a stage.
        widen: k, the stages have 16 k, 32 k and 64 k channels.
        classes: K.
        channels: C of the images.
        dropout: share that is dropped between the convolutions of a block, 0 = no such layer.
    """
    layers, inputs = OrderedDict[str, nn.Module](), 16
    layers["conv1"] = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
    for i, width in enumerate((16 * widen, 32 * widen, 64 * widen), start=1):
        blocks = []
        for j in range((depth - 4) // 6):
            blocks.append(_PreActivation(inputs, width, stride=2 if i > 1 and j == 0 else 1, dropout=dropout))
            inputs = width
        layers[f"block{i}"] = nn.Sequential(*blocks)
    layers["bn"] = nn.BatchNorm2d(inputs)
    layers["relu"] = nn.ReLU()
    return _classifying(layers, inputs, classes)


def _classifying(
    layers: OrderedDict[str, nn.Module], channels: int, classes: int, dropout: float = 0.0
) -> nn.Sequential:
    """Return the network that ends in global average pooling and a linear layer."""
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["fc"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


class _PreActivation(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        activated = self.relu1(self.bn1(features))
        path: Tensor = self.conv2(self.dropout(self.relu2(self.bn2(self.conv1(activated)))))
        # where the shape changes, the paper's code takes the shortcut from the activated map
        return path + (features if self.shortcut is None else self.shortcut(activated))
