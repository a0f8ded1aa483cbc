"""Files and bytes become Pillow images here and nowhere else: by a list of formats, and only up to a size."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from sdcompress.errors import InputError

__all__ = ["BROKEN", "FORMATS", "MOST_PIXELS", "PictureFile", "open_picture"]

# Pillow goes by the content, not by the name, and starts Ghostscript for an EPS that is called holiday.png
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 178_956_970  # where Pillow's own limit lies, which a program may have turned off
BROKEN = (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on files that it cannot read, header or pixels."""

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
    except (*BROKEN, TypeError) as error:
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


def _unreadable(error: Exception) -> str:
    # what Pillow says of an unknown format is the address of an object
    if isinstance(error, OSError) and error.strerror:
        return f"It cannot be read: {error.strerror}."
    return f"It is no image of the formats {', '.join(FORMATS)}, or its header is broken."
