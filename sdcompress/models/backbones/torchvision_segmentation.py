"""Segmentation networks of torchvision: fcn_resnet50, deeplabv3_mobilenet_v3_large, lraspp_mobilenet_v3_large.

Exits look at the backbone. DeepLabv3 and FCN spend most of their time behind it, so that an exit there saves much.
LR-ASPP has a skip connection from an early map: it can be cut only before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision import models

from sdcompress.errors import SetupError
from sdcompress.models.backbones._torchvision import check_call
from sdcompress.schema import graphs

__all__ = ["torchvision_segmentation"]


def torchvision_segmentation(
    name: str, *, outputs: tuple[int, ...], inputs: Sequence[graphs.Tensor], pretrained: bool, **options: Any
) -> nn.Module:
    """Return a segmentation network of torchvision with a new classifier for K classes.

    Args:
        name: of ``torchvision.models.segmentation``.
        outputs: (K, H, W).
        inputs: one image of three channels.
        pretrained: load torchvision's ImageNet weights of the backbone.
        options: further keyword arguments of the network's function.

    Raises:
        UnknownNameError: if torchvision has no such network.
        RecipeError: if the input is no image of three channels.
        SetupError: if the weights cannot be downloaded.
    """
    check_call("torchvision_segmentation", name, models.segmentation, inputs, "timm_fcn")
    weights = {"weights": None, "weights_backbone": "DEFAULT" if pretrained else None}
    try:
        network = models.get_model(name, num_classes=outputs[0], **{**weights, **options})
    except OSError as error:
        raise SetupError(
            f"The weights of 'torchvision_segmentation:{name}' cannot be downloaded: {error}",
            next_step="check the connection to download.pytorch.org, or remove model.pretrained",
        ) from error
    return _Masks(network)


class _Masks(nn.Module):
    """The logits alone: torchvision returns them in a dictionary, upsampled to the image's size."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.network(images)["out"]
        return outputs
