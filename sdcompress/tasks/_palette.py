"""Colours of classes in masks, as PASCAL VOC numbers them, and masks as picture files."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

__all__ = ["colours", "indexed_png"]


def colours() -> npt.NDArray[np.uint8]:
    """The RGB colours of the values 0 to 255, uint8 [256, 3], as in PASCAL VOC's annotations.

    Bit 7 - i of a channel is bit 3 i + c of the value, c being 0 for red, 1 for green and 2 for blue.
    """
    values = np.arange(256)[:, None]
    palette = np.zeros((256, 3), np.int64)
    for i in range(8):
        palette |= ((values >> (3 * i + np.arange(3))) & 1) << (7 - i)
    return palette.astype(np.uint8)


def indexed_png(mask: npt.NDArray[np.uint8]) -> bytes:
    """A mask, uint8 [H, W], as a PNG file whose pixels are the values, with ``colours`` as its palette."""
    from PIL import Image

    image = Image.fromarray(mask)
    image.putpalette(colours().tobytes())
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
