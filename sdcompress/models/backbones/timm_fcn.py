"""Segmentation: any convolutional encoder of timm, with the pixel-wise head 'dense' on its last map.

A fully convolutional network (Long, Shelhamer and Darrell, CVPR 2015, arXiv 1411.4038) without skip connections: these
would be needed behind every exit, and the network could not be cut between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdcompress.errors import RecipeError
from sdcompress.models.backbones.timm import timm
from sdcompress.models.heads.dense import Dense
from sdcompress.models.inputs import image_shape
from sdcompress.schema import graphs

__all__ = ["timm_fcn"]

# what timm raises for models that it gives no maps of, and for options that an encoder does not know
_NO_MAPS = (RuntimeError, AssertionError, NotImplementedError)


def timm_fcn(
    name: str,
    *,
    outputs: tuple[int, ...],
    inputs: Sequence[graphs.Tensor],
    pretrained: bool,
    width: int = 128,
    **options: Any,
) -> nn.Module:
    """Return a network of K logits for every pixel.

    Args:
        name: of timm's encoder; its last maps alone are used (timm's ``features_only``).
        outputs: (K, H, W).
        inputs: one image.
        pretrained: load the published weights of the encoder.
        width: channels of the head.
        options: as of the family ``timm``; ``output_stride: 8`` or ``16`` keeps the last maps larger, by dilation, for
            encoders that can.

    Raises:
        RecipeError: if timm gives no maps of the encoder; else as ``timm`` does.
    """
    image = image_shape(inputs, f"timm_fcn:{name}")
    try:
        encoder = timm(
            name, outputs=(0,), inputs=inputs, pretrained=pretrained, features_only=True, out_indices=(-1,), **options
        )
        return _Fcn(encoder, outputs[0], image, width)
    except _NO_MAPS as error:
        raise RecipeError(
            f"timm's '{name}' gives no maps (features_only) of images of {image[1]}x{image[2]}: {error}",
            allowed="an encoder with maps, such as resnet18, tf_efficientnet_lite0 or convnext_atto",
            next_step="choose another model.name, or a size that is a multiple of 32",
        ) from error


class _Fcn(nn.Module):
    def __init__(self, encoder: nn.Module, classes: int, image: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.pretrained_cfg = getattr(encoder, "pretrained_cfg", {})
        self.channels_last = str(getattr(encoder, "output_fmt", "")).endswith("NHWC")
        encoder.eval()
        with torch.no_grad():
            shape = tuple(self._map(torch.zeros(1, *image)).shape[1:])
        encoder.train()
        self.head = Dense(shape, (classes, *image[1:]), width=width, final_shape=shape, pool="mean")

    def _map(self, images: Tensor) -> Tensor:
        """Return the encoder's last map, [B, C, h, w]."""
        features: Tensor = self.encoder(images)[-1]
        return features.permute(0, 3, 1, 2) if self.channels_last else features

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.head(self._map(images))[0]
        return outputs
