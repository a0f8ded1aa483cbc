"""How a backbone lays out its maps: channels first or last, with or without a class token."""

from __future__ import annotations

from torch import nn

from sdcompress.models.cutpoints import CutPoint
from sdcompress.models.heads._base import Pool
from sdcompress.models.multiexit import Tap

__all__ = ["pooling", "tap"]


def tap(point: CutPoint, backbone: nn.Module, image: tuple[int, int, int]) -> Tap:
    """A tap at a cut point, its map as [B, C, H, W] or [B, N, C] whatever the backbone has.

    Args:
        point: where.
        backbone: asked for timm's ``output_fmt`` where a shape could be read both ways.
        image: (C, H, W) that the backbone was traced with.
    """
    if len(point.shape) == 3 and _channels_last(point.shape, backbone, image):
        height, width, channels = point.shape
        return Tap(point.name, (channels, height, width), channels_last=True)
    return Tap(point.name, point.shape)


def pooling(tap: Tap, backbone: nn.Module) -> Pool:
    """How tokens become a vector by default: the class token where these tokens begin with one, else the mean."""
    prefix = getattr(backbone, "num_prefix_tokens", 0)
    patches = getattr(getattr(backbone, "patch_embed", None), "num_patches", None)
    return "token" if prefix and len(tap.shape) == 2 and tap.shape[0] == prefix + (patches or 0) else "mean"


def _channels_last(shape: tuple[int, ...], backbone: nn.Module, image: tuple[int, int, int]) -> bool:
    first, last = _like(shape[1:], image), _like(shape[:2], image)
    if first != last:
        return last
    return getattr(backbone, "output_fmt", "NCHW") == "NHWC"


def _like(size: tuple[int, ...], image: tuple[int, int, int]) -> bool:
    """Whether two axes have the image's aspect ratio, up to the rounding of a few halvings."""
    (height, width), (_, image_height, image_width) = size, image
    if height > image_height or width > image_width:
        return False
    return abs(height - image_height * width / image_width) < 1.0
