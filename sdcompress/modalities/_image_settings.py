"""What a recipe may set of images: how they are prepared, and how they are augmented."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sdcompress.modalities._augmentation import AugmentationSettings
from sdcompress.schema.base import Frozen

__all__ = ["ImageAugmentation", "ImageSettings"]

Side = Annotated[int, Field(ge=1, le=2**13)]
Pixels = Annotated[int, Field(ge=0, lt=2**31)]
Alpha = Annotated[float, Field(ge=0)]


class ImageSettings(Frozen):
    """The parameters of ``modality`` for images; what is not set is the data set's, or that of loaded weights."""

    image_size: Side | tuple[Side, Side] | None = Field(
        None, description="side of a square in pixels, or height and width, e.g. [180, 240]"
    )
    mean: tuple[float, ...] | None = Field(None, description="of each channel, for images in [0, 1]")
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(None, description="likewise")
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = Field(None, description="of resizing")
    crop: Annotated[float, Field(gt=0, le=1)] | Literal["none"] | None = Field(
        None,
        description="side of the centre that is kept as a share of the resized shorter side; none: the whole image is "
        "resized to image_size",
    )
    white_level: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="value of 16-bit grey images that becomes 255, e.g. 4095 for 12 bits; default: 65535"
    )


class ImageAugmentation(AugmentationSettings):
    """The parameters of ``train.augment`` for images, in the order in which they are applied."""

    mixing: ClassVar[tuple[str, ...]] = ("cutmix",)
    moving: ClassVar[tuple[str, ...]] = ("resized_crop", "crop", "flip")

    resized_crop: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="cut out a random piece (aspect ratio from 3/4 to 4/3) and resize it to the whole: its least share "
        "of the area, e.g. 0.35; 0 = off",
    )
    crop: Pixels = Field(0, description="pad by this many pixels (reflect) and crop back at random")
    flip: bool = Field(False, description="horizontal flip with probability 1/2")
    auto_augment: Literal["none", "cifar10", "imagenet", "rand", "trivial"] = Field(
        "none", description="torchvision's AutoAugment policies, RandAugment or TrivialAugmentWide"
    )
    cutout: Pixels = Field(0, description="side in pixels of one grey square")
    cutmix: Alpha = Field(0.0, description="alpha of the Beta distribution, 0 = off")
