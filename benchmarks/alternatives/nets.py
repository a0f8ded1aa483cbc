"""ResNet-18 for small images at a half and a quarter of its width: what two cores can train in some minutes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sdcompress.models.backbones._cifar_networks import resnet
from sdcompress.schema.graphs import Tensor

__all__ = ["half", "quarter"]

DEPTHS = (2, 2, 2, 2)


def half(*, outputs: tuple[int, ...], inputs: Sequence[Tensor]) -> nn.Module:
    """32, 64, 128 and 256 channels."""
    return resnet((32, 64, 128, 256), DEPTHS, bottleneck=False, classes=outputs[0], channels=int(inputs[0].shape[1]))


def quarter(*, outputs: tuple[int, ...], inputs: Sequence[Tensor]) -> nn.Module:
    """16, 32, 64 and 128 channels: about a quarter of the multiply-accumulates of ``half``."""
    return resnet((16, 32, 64, 128), DEPTHS, bottleneck=False, classes=outputs[0], channels=int(inputs[0].shape[1]))
