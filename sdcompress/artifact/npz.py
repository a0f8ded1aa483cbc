"""Read plain arrays from an untrusted .npz. Headers are checked before memory is allocated."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from sdcompress.untrusted import Refused, read_bytes

__all__ = ["ANY", "LIMIT", "Expected", "read_npz"]

LIMIT = 2**28  # bytes of the file; its arrays are not larger, because they are stored uncompressed
_DIRECTORY = 2**16
_END, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x07"
_UNREADABLE = (
    *(ValueError, KeyError, EOFError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError),
    *(RuntimeError, NotImplementedError, zipfile.BadZipFile, struct.error, tokenize.TokenError),
)


class Expected(NamedTuple):
    """The expected dtype and rank of an array.

    Attributes:
        dtype: name of the numpy dtype; empty: any plain number.
        axes: number of axes; None: any.
        optional: whether it may be absent.
    """

    dtype: str
    axes: int | None = None
    optional: bool = False

    def fits(self, dtype: np.dtype[Any], axes: int) -> bool:
        """Whether an array of this dtype and number of axes is as expected."""
        right_dtype = dtype == self.dtype if self.dtype else dtype.kind in "biuf"
        return right_dtype and self.axes in {None, axes}

    def __str__(self) -> str:
        axes = "any number of axes" if self.axes is None else f"{self.axes} axes"
        return f"{self.dtype or 'a plain number'} of {axes}"


ANY = Expected("")


def read_npz(path: Path, expected: Mapping[str, Expected]) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an uncompressed .npz, as ``numpy.savez`` writes it. Nothing is unpickled.

    Args:
        path: the file.
        expected: the arrays by name. Any other member is refused.

    Returns:
        The arrays that are present, each with the expected dtype and rank.

    Raises:
        Refused: if the file holds anything else, exceeds 256 MiB, or is not a regular file.
        OSError: if it cannot be read.
    """
    content = read_bytes(path, LIMIT)
    _check_directory(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) != len(archive.infolist()) or not members.keys() <= expected.keys():
                raise Refused(f"it holds {', '.join(archive.namelist())}, not {', '.join(expected)} once each")
            if missing := [name for name, array in expected.items() if name not in members and not array.optional]:
                raise Refused(f"it lacks {', '.join(missing)}")
            return {name: _array(archive, info, name, expected[name]) for name, info in members.items()}
    except Refused:
        raise
    except _UNREADABLE as error:
        raise Refused(f"it is no .npz of plain arrays: {error}") from error


def _check_directory(content: bytes) -> None:
    """Bound the central directory: zipfile builds an object for each member before their number can be checked."""
    end = content[-22:]
    if end[:4] != _END or end[-2:] != b"\0\0" or content[-42:-38] == _LOCATOR_64:
        raise Refused("it is no .npz as numpy.savez writes it, or was cut short")
    if struct.unpack_from("<I", end, 12)[0] > _DIRECTORY:
        raise Refused("its list of members is too long")


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, expected: Expected) -> npt.NDArray[Any]:
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise Refused(f"'{name}' is compressed or encrypted, not stored")
    with archive.open(info) as member:
        if npy.read_magic(member) != (1, 0):
            raise Refused(f"'{name}' has another .npy version than 1.0")
        shape, fortran, dtype = npy.read_array_header_1_0(member)
        if not expected.fits(dtype, len(shape)):
            raise Refused(f"'{name}' is {dtype} {list(shape)}, not {expected}")
        size, stored_bytes = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
        if min(shape, default=0) < 0 or size != stored_bytes:
            raise Refused(f"'{name}' of shape {list(shape)} has {stored_bytes} bytes instead of {size}")
        content = bytearray(member.read(size))
        if len(content) != size or member.read(1):
            raise Refused(f"'{name}' is cut short")
    array: npt.NDArray[Any] = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
    return array
