"""Read the pickles of CIFAR without executing code from them."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.data.image_arrays import Images, Preprocess, image_source
from sdcompress.data.source import Source
from sdcompress.data.sources._torchvision import Published
from sdcompress.errors import DataError
from sdcompress.schema import recipe
from sdcompress.tasks import Array

__all__ = ["read_names", "read_split", "source"]

_SIDE = 32
_RECONSTRUCT = np.empty(0).__reduce__()[0]


def source(
    spec: recipe.Data,
    published: Published,
    *,
    train: Sequence[str],
    test: str,
    meta: str,
    kind: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Source:
    """Return CIFAR as a source, at 32 pixels.

    Args:
        spec: ``data`` of the recipe.
        published: the published files.
        train: files of the 50,000 training images.
        test: file of the 10,000 test images.
        meta: file of the class names.
        kind: prefix of the keys: "" for CIFAR-10, "fine_" for CIFAR-100.
        mean: of each channel over the training images, in [0, 1].
        std: as ``mean``.
    """
    folder = published.locate(spec)
    images_per_file = 50_000 // len(train)
    parts = [read_split(published, folder, file, labels=f"{kind}labels", count=images_per_file) for file in train]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return image_source(
        read_names(published, folder, meta, key=f"{kind}label_names"),
        Preprocess.square(_SIDE, mean=mean, std=std),
        (images, labels),
        read_split(published, folder, test, labels=f"{kind}labels", count=10_000),
    )


def read_split(published: Published, folder: Path, file: str, *, labels: str, count: int) -> tuple[Images, Array]:
    """Read images, uint8 [count, 32, 32, 3], and labels, int64 [count], of one file.

    Raises:
        DataError: if the file is damaged or holds another number of images.
    """
    batch = _read(published, folder, file)
    planes, numbers = np.asarray(batch.get("data")), np.asarray(batch.get(labels))
    fits = planes.dtype == np.uint8 and planes.shape == (count, 3 * _SIDE**2)
    if not fits or numbers.shape != (count,) or numbers.dtype.kind not in "iu":
        raise DataError(
            f"{folder / file} holds 'data' of {planes.dtype} {list(planes.shape)} and '{labels}' of "
            f"{numbers.dtype} {list(numbers.shape)}.",
            allowed=f"'data' of uint8 [{count}, 3072] and {count} '{labels}'",
            next_step="remove the folder and fetch it again with data.download=true",
        )
    images = planes.reshape(count, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), numbers.astype(np.int64)


def read_names(published: Published, folder: Path, file: str, *, key: str) -> tuple[str, ...]:
    """Read the class names.

    Raises:
        DataError: if the file is damaged.
    """
    names = _read(published, folder, file).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{folder / file} holds no list of names under '{key}'.",
            next_step="remove the folder and fetch it again with data.download=true",
        )
    return tuple(names)


def _read(published: Published, folder: Path, file: str) -> dict[str, Any]:
    raw = published.read(folder, file)
    try:
        batch = _Arrays(io.BytesIO(raw), encoding="latin1").load()
    # a damaged pickle may raise any of these
    except (pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, TypeError,
            ValueError, struct.error) as error:  # fmt: skip
        raise DataError(
            f"{folder / file} is damaged, or not a file of CIFAR: {error}",
            next_step="remove the folder and fetch it again with data.download=true",
        ) from error
    return batch if isinstance(batch, dict) else {}


class _Arrays(pickle.Unpickler):
    """An unpickler that builds numpy arrays and plain values, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}:
            return _RECONSTRUCT
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _dtype
        if (module, name) == ("_codecs", "encode"):  # bytes of Python 3 at protocol 2
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"it imports {module}.{name}, which no data file needs")


def _dtype(name: str, align: int, copy: int) -> np.dtype[Any]:
    # Python 2 wrote 0 and 1, which numpy 2.4 warns about
    return np.dtype(name, align=bool(align), copy=bool(copy))
