"""Atomic folders and files, locks, digests, and storage errors."""

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
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sdcompress.errors import OutputExistsError, StorageError, UsageError

if sys.platform != "win32":  # on Windows there are no locks, and leftovers of killed processes stay
    import fcntl

__all__ = [
    "LOCK",
    "clear_leftovers",
    "digest_of",
    "is_temporary",
    "locked_folder",
    "make_room",
    "sha256_of",
    "staged_folder",
    "storage_errors",
    "write_bytes",
    "write_text",
]

LOCK = ".lock"
"""The file inside a folder that ``locked_folder`` holds."""

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_STORAGE = {*_FULL, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of(fields: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form: sorted keys, no spaces, UTF-8, floats as repr."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn OSErrors of a full disk or a forbidden folder into a StorageError that names ``target``."""
    with _as_storage_error(target, _STORAGE):
        yield


@contextmanager
def _as_storage_error(target: Path, kinds: set[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # other libraries lose errno but keep the message of the system
        if error.errno not in kinds and "No space left" not in str(error):
            raise
        raise StorageError(
            f"{target} cannot be written: {error.strerror or error}.",
            allowed="a folder on a disk with free space that this user may write",
            next_step="free some space or choose another folder; completed work is kept",
        ) from error


@contextmanager
def staged_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``out`` when the block succeeds, and is removed if it fails.

    Args:
        out: must not exist when the block ends, unless ``replace`` is set.
        replace: replace the folder at ``out``, which is removed after the swap.

    Raises:
        StorageError: if the disk is full or the folder cannot be written.
    """
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        staging, lock = _new_locked_folder(out)
    try:
        # the block also reads files, whose permission errors are not errors of ``out``
        with _as_storage_error(out, _FULL):
            yield staging
        with storage_errors(out):
            for path in (*staging.rglob("*"), staging):  # of folders the entries, else files may have no names
                if path.is_file() or path.is_dir():
                    _sync(path)
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
    """Remove temporary folders of killed processes beside ``out``, and restore an ``out`` whose swap was interrupted.

    Folders that a running process has locked are kept.

    Args:
        out: a folder of ``staged_folder``.
    """
    try:
        beside = [path for path in out.parent.iterdir() if is_temporary(path, out.name) and path.is_dir()]
    except OSError:  # missing or unreadable
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
    """Whether a path has the name of a temporary file or folder for ``name``."""
    return re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.(tmp|old)", path.name) is not None


def make_room(folder: Path, files: Collection[str], *, overwrite: bool, kept: Collection[str] = ()) -> None:
    """Remove from the folder of a search what a killed process left, or all of an old search.

    Args:
        folder: exists.
        files: names of what a search writes there, with wildcards as a shell takes them.
        overwrite: remove an old search.
        kept: names of what stays of it.

    Raises:
        OutputExistsError: if it holds other things.
    """
    paths = [path for path in folder.iterdir() if path.name != LOCK]
    half = [path for path in paths if any(is_temporary(path, name) for name in files)]
    listed = [path for path in paths if any(fnmatchcase(path.name, name) for name in files)]
    foreign = sorted(path.name for path in paths if path not in listed and path not in half)
    if foreign:
        raise OutputExistsError(
            f"{folder} holds other things than a search: {', '.join(foreign[:5])}.",
            allowed="a new or empty folder, or the folder of a search",
            next_step="choose another folder with --out",
        )
    for path in [path for path in paths if path.name not in kept] if overwrite else half:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder until the block or the process ends. The folder is created if missing.

    Args:
        folder: the folder. On a file system without locks, nothing is locked.

    Raises:
        UsageError: if another process holds the lock.
        OutputExistsError: if the path is a file.
        StorageError: if the folder is not writable.
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
        (folder / LOCK).unlink(missing_ok=True)  # while locked, so that it is not the lock of another process
        os.close(lock)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: readers see the old text or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old content or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            _sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_locked_folder(out: Path) -> tuple[Path, int]:
    """Create a temporary folder beside ``out``; returns it with the descriptor of its lock."""
    while True:
        staging = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
        staging.mkdir()
        lock = os.open(staging, os.O_RDONLY)
        _try_lock(lock)
        if staging.exists():  # otherwise another process removed it before it was locked
            return staging, lock
        os.close(lock)


def _swap(new: Path, out: Path) -> None:
    """Replace the folder ``out`` by ``new``; the old folder is removed after the swap."""
    old = out.parent / f".{out.name}.{secrets.token_hex(4)}.old"
    lock = os.open(out, os.O_RDONLY)
    try:
        _try_lock(lock)
        try:
            out.rename(old)
            new.rename(out)
        except BaseException:  # also Ctrl-C, which may come between the two, or as soon as the second is done
            if old.exists() and not out.exists():
                old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
        if old.exists():  # the new folder is in place anyway
            warnings.warn(
                f"'{out}' was replaced; the old folder could not be removed and is now '{old}'.", stacklevel=2
            )
    finally:
        os.close(lock)


def _lock_file(folder: Path) -> int:
    """Acquire the lock file of a folder; returns its descriptor."""
    path = folder / LOCK
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        if _try_lock(lock) is False:
            holder = re.fullmatch(r"process \d+ on [\w.-]+", os.read(lock, 300).decode(errors="replace"))
            os.close(lock)
            raise UsageError(
                f"Another process is writing in {folder}{f': {holder.group()}' if holder else ''}.",
                allowed="one process at a time for each folder",
                next_step="wait until it ends, or choose another folder with --out",
            )
        if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
            os.truncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return lock
        os.close(lock)  # the previous holder has removed the file in the meantime


def _try_lock(descriptor: int) -> bool | None:
    """Try to lock an open file or folder; None if the file system has no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
