"""From any image to the network's input, with numpy and Pillow only: what training, artifact and service share.

In this order, as torchvision's transforms do on Pillow images:

1. channels: RGB to grey is ``(19595 R + 38470 G + 7471 B + 32768) >> 16`` (ITU-R 601); grey to RGB repeats; alpha is
   dropped. The EXIF orientation is ignored, so that a file and the array decoded from it give the same. Grey of 16 bits
   is scaled first: ``(255 * min(value, w) + w // 2) // w`` with the white level w, 65535 where none is set.
2. resize: to [height, width], or so that the shorter side has ``s`` pixels and the longer ``floor(s * long / short)``;
   Pillow's filters on uint8, which low-pass when they shrink. Nothing happens to an image of that size.
3. centre crop: top is ``round((height - crop height) / 2)``, halves to even; left likewise.
4. ``(x / 255 - mean) / std`` for each channel, as float32, channels first.

Steps 1 to 3 are ``geometry``, step 4 is ``normalise``. The samples of a data set are past ``geometry`` already.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdcompress.errors import InputError
from sdcompress.modalities._image_files import MODES, MOST_PIXELS, load_pixels
from sdcompress.modalities._preprocess_settings import Preprocess

__all__ = ["RawImage", "geometry", "normalise"]

RawImage = Image.Image | npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_EIGHT_BIT, _BY_RGB, _SIXTEEN_BIT = MODES.values()
_WHITE = 2**16 - 1


def geometry(image: RawImage, p: Preprocess) -> npt.NDArray[np.uint8]:
    """Convert the channels, resize and crop one image.

    Args:
        image: a Pillow image; uint8 [H, W], [H, W, 1] or [H, W, 3] (RGB); or uint16 [H, W] or [H, W, 1], grey.
        p: what to do.

    Returns:
        uint8 [H, W, C], C = ``p.channels``.

    Raises:
        InputError: if the array has another shape or dtype, the image has more than 16 bits, its file is broken, it
            is too small to crop, or so long that resizing it would take too much memory.
    """
    picture = _picture(image, p.white_level or _WHITE)
    mode = "L" if p.channels == 1 else "RGB"
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow warns when it drops a palette's alpha in one step
    if picture.mode != mode:
        picture = picture.convert(mode)
    size = _target(picture.size, p)
    if size[0] * size[1] > MOST_PIXELS:  # a few bytes may hold an image of 1 by 20,000
        raise InputError(
            f"The image has {picture.height}x{picture.width} pixels, and {size[1]}x{size[0]} after resizing.",
            allowed=f"at most {MOST_PIXELS:,} pixels after resizing",
            next_step="give an image whose sides are less unequal",
        )
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling[p.interpolation.upper()])
    if p.crop is not None:
        picture = _centre_crop(picture, *p.crop)
    return np.array(picture, np.uint8).reshape(picture.height, picture.width, p.channels)


def normalise(images: npt.NDArray[np.uint8], p: Preprocess) -> npt.NDArray[np.float32]:
    """Scale, normalise and put the channels first: ``(x / 255 - mean) / std``.

    Args:
        images: uint8 [B, H, W, C], past ``geometry``.
        p: holds mean and std.

    Returns:
        float32 [B, C, H, W], C-contiguous; each value is the exact one, rounded once.

    Raises:
        InputError: if the array has another dtype, rank or number of channels.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != p.channels:
        raise InputError(
            f"The images are {images.dtype} of shape {list(images.shape)}.",
            allowed=f"uint8 of shape [B, H, W, {p.channels}]",
            next_step="convert them; values are 0..255, channels come last",
        )
    out = np.empty((images.shape[0], p.channels, *images.shape[1:3]), np.float32)
    # so many pixels at a time that numpy's indices of them stay in the cache
    step = max(1, 2**16 // max(1, images.shape[1] * images.shape[2]))
    for start in range(0, len(images), step):
        part, target = images[start : start + step], out[start : start + step]
        for channel, values in enumerate(_values(tuple(p.mean), tuple(p.std))):
            # no index of 8 bits is out of range: 'clip' only spares numpy the check, and a buffer
            np.take(values, part[..., channel], out=target[:, channel], mode="clip")
    return out


@lru_cache(maxsize=16)
def _values(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[npt.NDArray[np.float32], ...]:
    """Return what each of the 256 levels becomes, float32 [256] for each channel."""
    levels = np.arange(256) / 255.0
    return tuple(((levels - m) / s).astype(np.float32) for m, s in zip(mean, std, strict=True))


def _picture(image: RawImage, white: int) -> Image.Image:
    """Return the image as Pillow has it, 8 bits a channel, its pixels read."""
    if isinstance(image, Image.Image):
        return _loaded(image, white)
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"The image is of the type {type(image).__name__}.",
            allowed="a Pillow image, or an array: uint8 [H, W], [H, W, 1] or [H, W, 3], or uint16 [H, W] or [H, W, 1]",
            next_step="convert it; values are 0..255 (uint16: 0..65535), channels come last",
        )
    channels = image.shape[2] if image.ndim == 3 else 1
    depths = {np.dtype(np.uint8): {1, 3}, np.dtype(np.uint16): {1}}
    if image.ndim not in {2, 3} or channels not in depths.get(image.dtype, set()):
        raise InputError(
            f"The image is {image.dtype} of shape {list(image.shape)}.",
            allowed="uint8 of shape [H, W], [H, W, 1] or [H, W, 3]; or uint16 of shape [H, W] or [H, W, 1]",
            next_step="convert it; values are 0..255 (uint16: 0..65535), channels come last",
        )
    if image.size == 0:
        raise _empty(list(image.shape))
    flat = image[:, :, 0] if image.shape[2:] == (1,) else image
    return Image.fromarray(flat if flat.dtype == np.uint8 else _scaled(flat, white))


def _loaded(image: Image.Image, white: int) -> Image.Image:
    if 0 in image.size:
        raise _empty([image.height, image.width])
    load_pixels(image)
    if image.mode in _SIXTEEN_BIT:
        return Image.fromarray(_scaled(np.asarray(image), white))
    # Pillow makes no grey of LAB at once
    picture = image.convert("RGB") if image.mode in _BY_RGB else image
    if picture.mode not in _EIGHT_BIT:
        raise InputError(
            f"The image has the Pillow mode '{image.mode}'" + (", 32-bit floats." if image.mode == "F" else "."),
            allowed=", ".join(sorted(set().union(*MODES.values()))),
            next_step="scale it to 0..255 and convert it to 'L' or 'RGB' first",
        )
    return picture


def _scaled(values: npt.NDArray[np.integer], white: int) -> npt.NDArray[np.uint8]:
    """Return grey of 16 bits in 8: ``white`` and what is brighter become 255, between them the nearest level."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _WHITE:
        raise InputError(
            f"The image has more than 16 bits: its values reach from {low} to {high}.",
            allowed=f"0 to {_WHITE}",
            next_step="scale it to 0..255 and convert it to 'L' first",
        )
    levels = np.minimum(values, white).astype(np.uint32)
    eight_bit: npt.NDArray[np.uint8] = ((255 * levels + white // 2) // white).astype(np.uint8)
    return eight_bit


def _empty(shape: list[int]) -> InputError:
    return InputError(
        f"The image is empty: its shape is {shape}.",
        allowed="at least one pixel",
        next_step="check how the image was read",
    )


def _target(size: tuple[int, int], p: Preprocess) -> tuple[int, int]:
    if p.resize is None:
        return size
    if isinstance(p.resize, tuple):
        return p.resize[1], p.resize[0]
    width, height = size
    if width <= height:
        return p.resize, int(p.resize * height / width)
    return int(p.resize * width / height), p.resize


def _centre_crop(picture: Image.Image, height: int, width: int) -> Image.Image:
    if picture.height < height or picture.width < width:
        raise InputError(
            f"The image has {picture.height}x{picture.width} pixels where {height}x{width} are cut out of its centre.",
            allowed=f"at least {height}x{width} pixels (height x width) after resizing",
            next_step="give a larger image",
        )
    top, left = round((picture.height - height) / 2), round((picture.width - width) / 2)
    return picture.crop((left, top, left + width, top + height))
