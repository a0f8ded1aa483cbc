"""Networks for small images as papers on CIFAR use them: resnet8, resnet18, vgg16_bn, wrn_28_10 and their like.

Layer sizes are those of kuangliu/pytorch-cifar, so parameter counts and published accuracies are comparable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.models.backbones._cifar_networks import (
    RESNETS,
    VGG_WIDTHS,
    VGGS,
    resnet,
    scaled,
    vgg,
    wide_resnet,
)
from sdcompress.models.inputs import image_shape
from sdcompress.schema import graphs

__all__ = ["cifar"]

# read by shell completion without torch
NAMES = (
    "resnet8",
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg11_bn",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
    "wrn_16_1",
    "wrn_16_4",
    "wrn_28_10",
    "wrn_40_2",
)
_WIDE = re.compile(r"wrn_(\d+)_(\d+)")


def cifar(
    name: str,
    *,
    outputs: tuple[int, ...],
    inputs: Sequence[graphs.Tensor],
    pretrained: bool,
    dropout: float = 0.0,
    width: float = 1.0,
) -> nn.Module:
    """Return a network by name, convolutions initialised as He et al. (ICCV 2015) for ReLU, fan-out.

    Args:
        name: resnet8 .. resnet50, vgg11_bn .. vgg19_bn, or wrn_<depth>_<widen>.
        outputs: (K,).
        inputs: one image.
        pretrained: must be False: there are no published weights for these.
        dropout: share that is dropped: before the classifier, in a wide network between the convolutions of each block.
        width: factor of the channels of every layer of a ResNet or VGG; a wide network has it in its name.

    Raises:
        UnknownNameError: if there is no such network.
        RecipeError: if the input is no image, pretrained is set, dropout is no share, width is not positive or stands
            beside a wide network, or a wide network's depth is not 6 n + 4.
    """
    if pretrained:
        raise RecipeError(
            f"model.pretrained is set, and there are no published weights for 'cifar:{name}'.",
            next_step="remove model.pretrained, or choose a timm: backbone",
        )
    if not 0 <= dropout < 1:
        raise RecipeError(
            f"model.options.dropout is {dropout!r}.", allowed="0 to below 1", next_step="set it to 0.1, for instance"
        )
    if not 0 < width <= 16 or (width != 1 and _WIDE.fullmatch(name)):
        raise RecipeError(
            f"model.options.width is {width!r} for 'cifar:{name}'.",
            allowed="above 0 to 16, for a ResNet or VGG",
            next_step="set it to 0.5, for instance; of a wide network choose another name, e.g. cifar:wrn_16_2",
        )
    network = _network(name, outputs[0], image_shape(inputs, f"cifar:{name}")[0], dropout, width)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _network(name: str, classes: int, channels: int, dropout: float, width: float) -> nn.Module:
    if name in RESNETS:
        widths, depths, bottleneck = RESNETS[name]
        widths = scaled(widths, width)
        return resnet(widths, depths, bottleneck=bottleneck, classes=classes, channels=channels, dropout=dropout)
    if name in VGGS:
        widths = scaled(VGG_WIDTHS, width)
        return vgg(VGGS[name], widths, classes=classes, channels=channels, dropout=dropout)
    wide = _WIDE.fullmatch(name)
    if wide is None:
        raise UnknownNameError("cifar backbones", name, NAMES)
    depth, widen = int(wide[1]), int(wide[2])
    if depth < 10 or depth % 6 != 4 or widen < 1:
        raise RecipeError(
            f"There is no wide residual network 'cifar:{name}'.",
            allowed="wrn_<depth>_<widen>, depth one of 10, 16, 22, 28, ... (6 n + 4), widen at least 1",
            next_step="write for instance 'cifar:wrn_28_10'",
        )
    return wide_resnet(depth, widen, classes=classes, channels=channels, dropout=dropout)
