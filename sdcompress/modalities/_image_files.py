"""Files and bytes become Pillow images here and nowhere else: by a list of formats, and only up to a size."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

from sdcompress.errors import InputError

__all__ = ["BROKEN", "FORMATS", "MODES", "MOST_PIXELS", "PictureFile", "check_picture", "load_pixels", "open_picture"]

# Pillow goes by the content, not by the name, and starts Ghostscript for an EPS that is called holiday.png
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 178_956_970  # where Pillow's own limit lies, which a program may have turned off
BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError),
    # its parsers compute with what a broken file says, such as a place that is 0.5
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError),
)
"""What Pillow raises on files that it cannot read, header or pixels."""

MODES = {
    "grey or colour of 8 bits": {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"},
    "other colours of 8 bits": {"HSV", "LAB"},
    "grey of 16 bits": {"I", "I;16", "I;16B", "I;16L", "I;16N"},
}
"""Pillow's modes that become grey or RGB of 8 bits."""

_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}

PictureFile = Path | str | bytes | BinaryIO


@contextmanager
def open_picture(file: PictureFile) -> Iterator[Image.Image]:
    """Open an image; its header is read, its pixels when they are asked for.

    Args:
        file: a path, the bytes of a file, or an open file.

    Raises:
        InputError: if it is no file, none of these formats, its header is broken, or it has too many pixels.
    """
    if isinstance(file, str | Path) and not Path(file).is_file():  # a FIFO would be waited for
        raise InputError(f"There is no file '{file}'.", allowed="an image file", next_step="correct the path")
    try:
        image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS)
    except BROKEN as error:
        raise InputError(
            str(error) if isinstance(error, Image.DecompressionBombError) else _unreadable(error),
            allowed=f"an image file of one of the formats {', '.join(FORMATS)}, of at most {MOST_PIXELS:,} pixels",
            next_step="convert it, or copy it again",
        ) from error
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise InputError(
                f"The image has {image.width}x{image.height} pixels (width x height).",
                allowed=f"at most {MOST_PIXELS:,} pixels",
                next_step="make it smaller first",
            )
        yield image


def check_picture(file: PictureFile) -> None:
    """Read an image's header, and see whether its file is whole.

    A JPEG or PNG that does not end as such a file does is decoded, since something may follow a whole one. Of other
    formats the header alone is read: what is broken behind it is found when it is decoded.

    Args:
        file: a path, the bytes of a file, or an open file.

    Raises:
        InputError: if it cannot be used.
    """
    with open_picture(file) as image:
        if not any(image.mode in modes for modes in MODES.values()):
            raise InputError(f"The image has the Pillow mode '{image.mode}'.", next_step="convert it to 'L' or 'RGB'")
        end = _ENDS.get(image.format or "")
        content = image.fp if isinstance(image, ImageFile.ImageFile) else None
        if end is None or content is None:
            return
        at = content.tell()
        content.seek(-min(len(end), content.seek(0, io.SEEK_END)), io.SEEK_END)
        whole = content.read() == end
        content.seek(at)
        if not whole:
            load_pixels(image)


def load_pixels(image: Image.Image) -> None:
    """Decode an image that was opened: Pillow reads its pixels only now.

    Raises:
        InputError: if its file is truncated or broken.
    """
    try:
        image.load()
    except BROKEN as error:
        raise InputError(
            f"The image cannot be decoded: {error}.",
            allowed="a whole image file",
            next_step="copy or save the file again",
        ) from error


def _unreadable(error: Exception) -> str:
    # what Pillow says of an unknown format is the address of an object
    if isinstance(error, OSError) and error.strerror:
        return f"It cannot be read: {error.strerror}."
    return f"It is no image of the formats {', '.join(FORMATS)}, or its header is broken."
