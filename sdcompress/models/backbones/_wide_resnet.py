"""Wide residual networks: norm and activation before each convolution."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

__all__ = ["wide_resnet"]


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
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(inputs, classes)
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
