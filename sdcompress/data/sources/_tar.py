"""Index the members of an uncompressed tar archive, so that each can be read by its offset.

One pass reads the headers; nothing is unpacked to disk. ``tarfile`` takes a damaged header for the end of the archive,
so that the end is checked here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdcompress.errors import DataError

__all__ = ["Member", "members", "read"]

_BLOCK = 512  # block size of tar in bytes (POSIX)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        name: path in the archive.
        offset: of its first byte.
        size: in bytes.
    """

    name: str
    offset: int
    size: int


def members(archive: Path) -> Iterator[Member]:
    """Yield the regular files of an archive in order.

    Raises:
        DataError: if the archive is compressed, truncated or damaged, or holds links or sparse files.
    """
    end, last, total = 0, "", archive.stat().st_size
    try:
        with tarfile.open(archive, "r:") as tar:
            while (info := tar.next()) is not None:
                end, last = info.offset_data + -(-info.size // _BLOCK) * _BLOCK, info.name
                if info.size < 0 or info.offset_data + info.size > total:
                    raise _damaged(archive, f"is truncated in its member '{last}': {total} bytes are left of it")
                if info.isdir():
                    end = info.offset_data
                    continue
                if not info.isreg() or info.issparse():
                    raise DataError(
                        f"The member '{last}' of {archive} is a link, a sparse file or a device.",
                        allowed="regular files, which can be read by their offset",
                        next_step="write the archive again, e.g. with tar --dereference --hard-dereference",
                    )
                yield Member(last, info.offset_data, info.size)
    except (tarfile.TarError, OSError, ValueError, EOFError, ArithmeticError) as error:
        raise _unreadable(archive, last, error) from error
    _check_end(archive, end, last)


def read(archive: Path, member: Member) -> bytes:
    """Read the bytes of a member. Safe from any thread.

    Raises:
        DataError: if the archive cannot be read or was truncated.
    """
    try:
        # opened each time: threads cannot share a file position, and a process has a limit of open files
        with archive.open("rb") as file:
            file.seek(member.offset)
            content = file.read(member.size)
    except OSError as error:
        raise DataError(f"{archive} cannot be read: {error.strerror}.", next_step="check the disk") from error
    if len(content) < member.size:
        raise _damaged(archive, f"is truncated in its member '{member.name}', and was longer when it was opened")
    return content


def _check_end(archive: Path, end: int, last: str) -> None:
    position = f"after its member '{last}'" if last else "at its beginning"
    with archive.open("rb") as file:
        file.seek(end)
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise _damaged(archive, f"is truncated {position}: the end marker is missing")
        if any(block):
            raise _damaged(archive, f"has a damaged header {position}")
        while block_after := file.read(2**20):
            if any(block_after):  # tarfile would ignore this
                raise DataError(
                    f"{archive} has data after its end, which is {position}.",
                    allowed="one tar archive in each file",
                    next_step="if archives were joined with cat, join them with tar --concatenate",
                )


def _unreadable(archive: Path, last: str, error: Exception) -> DataError:
    if isinstance(error, OSError):
        return DataError(f"{archive} cannot be read: {error}.", next_step="check the disk and the permissions")
    with archive.open("rb") as file:
        beginning = file.read(8)
    packed = next((kind for magic, kind in _COMPRESSED.items() if beginning.startswith(magic)), None)
    if packed:
        return DataError(
            f"{archive} is compressed with {packed}, so that images in it cannot be read by offset.",
            allowed="uncompressed tar archives",
            next_step="unpack it to a .tar that holds the same files (compression does not make images smaller)",
        )
    return _damaged(archive, f"cannot be read after its member '{last}': {error}" if last else f"is no tar: {error}")


def _damaged(archive: Path, problem: str) -> DataError:
    return DataError(f"{archive} {problem}.", allowed="a complete tar archive", next_step="copy or write it again")
