"""Read the idx files of MNIST and similar sets, with or without gzip.

The header is big-endian: two zero bytes, 8 for unsigned bytes, the number of axes, and their sizes in 32 bits each.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.data.image_arrays import Preprocess, image_source
from sdcompress.data.source import Source
from sdcompress.data.sources._torchvision import Published
from sdcompress.errors import DataError
from sdcompress.schema import recipe

__all__ = ["read_array", "source"]

_SIDE = 28


def source(spec: recipe.Data, published: Published, *, classes: tuple[str, ...], mean: float, std: float) -> Source:
    """Return the data set as a source with one channel, at 28 pixels.

    Args:
        spec: ``data`` of the recipe.
        published: the published files.
        classes: their names.
        mean: over the training images, in [0, 1].
        std: as ``mean``.
    """
    folder = published.locate(spec)
    train, test = (
        (
            read_array(published, folder, f"{split}-images-idx3-ubyte.gz", (count, _SIDE, _SIDE))[..., None],
            read_array(published, folder, f"{split}-labels-idx1-ubyte.gz", (count,)).astype(np.int64),
        )
        for split, count in (("train", 60_000), ("t10k", 10_000))
    )
    preprocess = Preprocess.square(_SIDE, mean=(mean,), std=(std,))
    return image_source(classes, preprocess, train, test)


def read_array(published: Published, folder: Path, file: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Read the values of one file, uint8 of the given shape.

    Raises:
        DataError: if it is damaged, or has another shape.
    """
    raw = published.read(folder, file)
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(folder / file, str(error), shape) from error
    header = b"\x00\x00\x08" + bytes([len(shape)]) + np.array(shape, ">u4").tobytes()
    if not raw.startswith(header):
        raise _damaged(folder / file, f"its first bytes are {raw[: len(header)].hex(' ')}", shape)
    size = len(raw) - len(header)
    if size != np.prod(shape):
        raise _damaged(folder / file, f"it holds {size} values", shape)
    values: npt.NDArray[Any] = np.frombuffer(raw, np.uint8, offset=len(header))
    return values.reshape(shape)


def _damaged(path: Path, why: str, shape: tuple[int, ...]) -> DataError:
    return DataError(
        f"{path} is damaged, or another file: {why}.",
        allowed=f"an idx file of unsigned bytes of shape {list(shape)}",
        next_step="remove the folder and fetch it again with data.download=true",
    )
