"""Plain arrays in an .npz, each known by its header before anything is allocated for it."""

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

__all__ = ["LIMIT", "Expected", "read_npz"]

LIMIT = 2**28  # bytes; of the file, and so of its arrays, because nothing in it is compressed
_DIRECTORY = 2**16
_END, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x07"
_UNREADABLE = (
    *(ValueError, KeyError, EOFError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError),
    *(RuntimeError, NotImplementedError, zipfile.BadZipFile, struct.error, tokenize.TokenError),
)


class Expected(NamedTuple):
    """An array that a file may hold.

    Attributes:
        dtype: as numpy writes it.
        axes: how many.
        optional: whether the file may lack it.
    """

    dtype: str
    axes: int
    optional: bool = False


def read_npz(path: Path, expected: Mapping[str, Expected]) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an .npz as ``numpy.savez`` writes it: stored, not compressed; nothing is unpickled.

    Args:
        path: the file.
        expected: the arrays by name. Anything else in the file is refused.

    Returns:
        Those that there are, with the dtype and the number of axes that were asked for.

    Raises:
        Refused: if the file holds something else, is larger than 256 MiB or no regular file.
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
    """Bound the list of members: zipfile makes an object of each before it can be asked how many there are."""
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
            raise Refused(f"'{name}' has another version of numpy's format than 1.0")
        shape, fortran, dtype = npy.read_array_header_1_0(member)
        if dtype != expected.dtype or len(shape) != expected.axes:
            raise Refused(f"'{name}' is {dtype} {list(shape)}, not {expected.dtype} of {expected.axes} axes")
        size, there = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
        if min(shape, default=0) < 0 or size != there:
            raise Refused(f"'{name}' of shape {list(shape)} has {there} bytes instead of {size}")
        content = bytearray(member.read(size))
        if len(content) != size or member.read(1):
            raise Refused(f"'{name}' is cut short")
    found: npt.NDArray[Any] = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
    return found
