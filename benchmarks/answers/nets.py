"""Smaller networks to compare with: the first five stages of EfficientNet-Lite0, as a classifier and for masks."""

from __future__ import annotations

from collections.abc import Sequence

import timm
from torch import nn

from sdcompress.models.backbones.timm_fcn import _Fcn
from sdcompress.models.inputs import image_shape
from sdcompress.schema.graphs import Tensor

__all__ = ["lite0_classifier", "lite0_masks"]

_NAME = "tf_efficientnet_lite0"
_STAGES, _CHANNELS = 5, 112  # of seven stages


def lite0_classifier(*, outputs: tuple[int, ...], inputs: Sequence[Tensor]) -> nn.Module:  # noqa: ARG001
    """Return the first stages with the head of the whole network, which takes their channels."""
    net = timm.create_model(_NAME, num_classes=outputs[0])
    net.blocks = net.blocks[:_STAGES]
    net.conv_head = nn.Conv2d(_CHANNELS, net.conv_head.out_channels, 1, bias=False)
    return net


def lite0_masks(*, outputs: tuple[int, ...], inputs: Sequence[Tensor]) -> nn.Module:
    """Return the first stages, at a sixteenth of the image, with the head 'dense'."""
    encoder = timm.create_model(_NAME, features_only=True, out_indices=(3,), output_stride=16)
    encoder.blocks = encoder.blocks[:_STAGES]
    return _Fcn(encoder, outputs[0], image_shape(inputs, _NAME), width=128)
