"""Detect how a backbone lays out its maps: channels first or last, with or without a class token."""

from __future__ import annotations

from math import log

from torch import nn

from sdcompress.models.cutpoints import CutPoint
from sdcompress.models.heads._base import Pool
from sdcompress.models.multiexit import Tap

__all__ = ["is_map", "pooling", "tap"]


def tap(
    point: CutPoint, backbone: nn.Module, image: tuple[int, int, int] | None, mask_length: int | None = None
) -> Tap:
    """Return a tap at a cut point, its map as [B, C, H, W] or [B, N, C] whatever the backbone has.

    Args:
        point: where.
        backbone: asked for timm's ``output_fmt`` where a shape could be read both ways.
        image: (C, H, W) that the backbone was traced with; None: its inputs are no picture, and maps stay as they are.
        mask_length: N of the padding mask [B, N] that the backbone was traced with; None: there is none.
    """
    if image is not None and len(point.shape) == 3 and _channels_last(point.shape, backbone, image):
        height, width, channels = point.shape
        return Tap(point.name, (channels, height, width), channels_last=True)
    return Tap(point.name, point.shape, masked=_is_tokens(point, mask_length))


def is_map(point: CutPoint, image: tuple[int, int, int] | None, mask_length: int | None = None) -> bool:
    """Return whether an output is tokens or, as far as its shape tells, a picture (NesT's blocks of tokens are not).

    With a padding mask [B, N] of tokens, N is the first axis of a sample (SqueezeBERT's layers have [B, C, N]).
    """
    if image is None:
        return mask_length is None or _is_tokens(point, mask_length) or mask_length not in point.shape[1:]
    sizes = (point.shape[1:], point.shape[:2])
    return len(point.shape) == 2 or any(max(size) <= 4 or _distortion(size, image) < log(1.5) for size in sizes)


def _is_tokens(point: CutPoint, mask_length: int | None) -> bool:
    return len(point.shape) == 2 and point.shape[0] == mask_length


def pooling(tap: Tap, backbone: nn.Module) -> Pool:
    """Return the default pooling of tokens: the class token where these tokens begin with one, else the mean."""
    prefix = getattr(backbone, "num_prefix_tokens", 0)
    patches = getattr(getattr(backbone, "patch_embed", None), "num_patches", None)
    return "token" if prefix and len(tap.shape) == 2 and tap.shape[0] == prefix + (patches or 0) else "mean"


def _channels_last(shape: tuple[int, ...], backbone: nn.Module, image: tuple[int, int, int]) -> bool:
    first, last = _distortion(shape[1:], image), _distortion(shape[:2], image)
    if first == last:
        return getattr(backbone, "output_fmt", "NCHW") == "NHWC"
    return last < first


def _distortion(size: tuple[int, ...], image: tuple[int, int, int]) -> float:
    """Return the distance of two axes from the image's aspect ratio: |log| of the ratio of both."""
    return abs(log(size[0] / size[1] * image[2] / image[1]))
