"""Files that are whole or not there: staged folders, atomic writes, digests, a full disk as an error of ours."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdcompress.errors import StorageError

__all__ = ["digest_of", "replace_folder", "sha256_of", "staged_folder", "storage_errors", "write_text"]

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
def staged_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends well, and vanishes otherwise.

    Args:
        out: must not exist when the block ends; ``replace_folder`` makes room.

    Raises:
        StorageError: if the disk is full or the folder cannot be written.
    """
    staging = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
    with storage_errors(out):
        staging.mkdir(parents=True)
    try:
        # the block also reads: what it may not read is not our folder
        with _as_storage_error(out, _FULL):
            yield staging
        with storage_errors(out):
            for file in staging.rglob("*"):
                if file.is_file():
                    _sync(file)
            staging.rename(out)
            _sync(out.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def replace_folder(new: Path, out: Path) -> None:
    """Put the folder ``new`` in the place of ``out``; whatever stood there is removed only after the swap."""
    old = out.parent / f".{out.name}.{secrets.token_hex(4)}.old"
    out.rename(old)
    try:
        new.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


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
