"""Files that are whole or not there: staged folders, atomic writes, locks, digests, a full disk as an error of ours."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdcompress.errors import OutputExistsError, StorageError, UsageError

if sys.platform != "win32":  # there nothing is locked, and nothing of a killed process is removed
    import fcntl

__all__ = [
    "LOCK",
    "clear_leftovers",
    "digest_of",
    "is_temporary",
    "locked_folder",
    "sha256_of",
    "staged_folder",
    "storage_errors",
    "write_text",
]

LOCK = ".lock"
"""The file inside a folder that ``locked_folder`` holds."""

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_STORAGE = {*_FULL, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of(fields: Any) -> str:
    """SHA-256 of a JSON value in canonical form: sorted keys, no spaces, UTF-8, floats as Python's repr."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn a full disk or a forbidden folder into a StorageError that names ``target``; for our own writing only."""
    with _as_storage_error(target, _STORAGE):
        yield


@contextmanager
def _as_storage_error(target: Path, kinds: set[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # libraries that write for us lose errno but keep the system's words
        if error.errno not in kinds and "No space left" not in str(error):
            raise
        raise StorageError(
            f"{target} cannot be written: {error.strerror or error}.",
            allowed="a folder on a disk with free space that this user may write",
            next_step="free some space or choose another folder; what was complete before is kept",
        ) from error


@contextmanager
def staged_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends well, and vanishes otherwise.

    Args:
        out: must not exist when the block ends, unless it may be replaced.
        replace: put the new folder in the place of the one that is at ``out``, which is removed only after the swap.

    Raises:
        StorageError: if the disk is full or the folder cannot be written.
    """
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        staging, lock = _new_locked_folder(out)
    try:
        # the block also reads: what it may not read is not our folder
        with _as_storage_error(out, _FULL):
            yield staging
        with storage_errors(out):
            for file in staging.rglob("*"):
                if file.is_file():
                    _sync(file)
            if replace:
                _swap(staging, out)
            else:
                staging.rename(out)
            _sync(out.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def clear_leftovers(out: Path) -> None:
    """Remove temporary folders that killed processes left beside ``out``; put an old ``out`` back that was cut off.

    A folder that a living process still writes is locked by it, and is left alone.

    Args:
        out: the folder that was, or is to be, written by ``staged_folder``.
    """
    try:
        beside = [path for path in out.parent.iterdir() if is_temporary(path, out.name) and path.is_dir()]
    except OSError:  # not there yet, or not to be listed
        return
    for path in beside:
        try:
            lock = os.open(path, os.O_RDONLY | _NO_LINK)
        except OSError:
            continue
        try:
            if not _try_lock(lock):
                continue
            if path.suffix == ".old" and not out.exists():  # killed between the two renames of a swap
                path.rename(out)
            else:
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)


def is_temporary(path: Path, name: str) -> bool:
    """Whether a path is named as the temporary file or folder that this module writes on the way to ``name``."""
    return re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.(tmp|old)", path.name) is not None


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if it is not there, until the block or the process ends, however it ends.

    Args:
        folder: a second process that asks for it is refused; on a file system without locks none is.

    Raises:
        UsageError: if another process holds it.
        OutputExistsError: if there is a file at its place.
        StorageError: if the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(
            f"{folder} is a file.", allowed="a folder", next_step="choose another folder with --out"
        )
    is_new = not folder.exists()
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock_file(folder)
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # while it is held, so that nobody else's file is removed
        os.close(lock)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old text or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            _sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Ask the system to put a file, or a folder's list of names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_locked_folder(out: Path) -> tuple[Path, int]:
    """A new temporary folder beside ``out``, and the open descriptor that holds its lock."""
    while True:
        staging = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
        staging.mkdir()
        lock = os.open(staging, os.O_RDONLY)
        _try_lock(lock)
        if staging.exists():  # or it was cleared away between the two lines before
            return staging, lock
        os.close(lock)


def _swap(new: Path, out: Path) -> None:
    """Put the folder ``new`` in the place of ``out``; what stood there is removed only after the swap."""
    old = out.parent / f".{out.name}.{secrets.token_hex(4)}.old"
    lock = os.open(out, os.O_RDONLY)
    try:
        _try_lock(lock)
        out.rename(old)
        try:
            new.rename(out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
        if old.exists():  # the new folder stands all the same
            warnings.warn(f"'{out}' was replaced; what it held could not be removed and is now '{old}'.", stacklevel=2)
    finally:
        os.close(lock)


def _lock_file(folder: Path) -> int:
    """The open descriptor of a folder's lock, which is now this process's."""
    path = folder / LOCK
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        if _try_lock(lock) is False:
            holder = re.fullmatch(r"process \d+ on [\w.-]+", os.read(lock, 300).decode(errors="replace"))
            os.close(lock)
            raise UsageError(
                f"Another process is writing in {folder}{f': {holder.group()}' if holder else ''}.",
                allowed="one process at a time for each folder",
                next_step="wait until it has ended, or choose another folder with --out",
            )
        if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
            os.truncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return lock
        os.close(lock)  # whoever held it before has removed the file meanwhile


def _try_lock(descriptor: int) -> bool | None:
    """Whether the lock of an open file or folder could be had; None where the file system has no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
