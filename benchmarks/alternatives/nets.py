"""ResNet-18 for small images at a half and a quarter of its width: what two cores can train in some minutes."""

from __future__ import annotations

from torch import nn

from sdcompress.models.backbones._cifar_networks import resnet

__all__ = ["half", "quarter"]

DEPTHS = (2, 2, 2, 2)


def half(classes: int, channels: int) -> nn.Module:
    """32, 64, 128 and 256 channels."""
    return resnet((32, 64, 128, 256), DEPTHS, bottleneck=False, classes=classes, channels=channels)


def quarter(classes: int, channels: int) -> nn.Module:
    """16, 32, 64 and 128 channels: about a quarter of the multiply-accumulates of ``half``."""
    return resnet((16, 32, 64, 128), DEPTHS, bottleneck=False, classes=classes, channels=channels)
