"""Write an artifact in one step: everything into a temporary sibling, the manifest last, then one rename."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdcompress.artifact.digest import digest_of, sha256_of
from sdcompress.errors import OutputExistsError, StorageError
from sdcompress.schema.manifest import FileEntry, Manifest

__all__ = ["digest_of", "entry", "seal", "staged"]

_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def staged(out: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends, and vanishes when it fails.

    Args:
        out: the folder to write; its parents are made.
        overwrite: replace an artifact that is there. A folder of anything else is never replaced.

    Yields:
        The temporary folder.

    Raises:
        OutputExistsError: if ``out`` holds something that would be lost.
        StorageError: if the disk is full or the folder cannot be written.
    """
    out = Path(out).resolve()  # a link to an artifact stays a link
    _refuse_to_lose(out, overwrite=overwrite)
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    with _storage_errors(out):
        try:
            folder.mkdir(parents=True)
            yield folder
            _sync(folder)
            _publish(folder, out, overwrite=overwrite)
        except BaseException:  # Ctrl-C too must leave nothing behind
            shutil.rmtree(folder, ignore_errors=True)
            raise


def entry(folder: Path, name: str) -> FileEntry:
    """List an existing file: its name, SHA-256 and size.

    Args:
        folder: the artifact folder, or the temporary one it is written in.
        name: the file's name inside it.
    """
    return FileEntry(file=name, sha256=sha256_of(folder / name), bytes=(folder / name).stat().st_size)


def seal(folder: Path, **fields: Any) -> Manifest:
    """Compute the digest and write manifest.json; call it last.

    Args:
        folder: the artifact folder, or the temporary one it is written in.
        fields: every field of ``Manifest`` but ``digest``.
    """
    unsealed = Manifest(**{**fields, "digest": "0" * 64}).model_dump(mode="json")
    sealed = {**unsealed, "digest": digest_of(unsealed)}
    text = json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8", newline="\n")
    return Manifest.model_validate(sealed)


def _refuse_to_lose(out: Path, *, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise OutputExistsError(f"'{out}' is a file.", allowed="a folder", next_step="choose another --out")
    foreign = _foreign(out)
    if foreign:
        raise OutputExistsError(
            f"'{out}' holds '{foreign}', which is not part of an artifact.",
            allowed="a new or empty folder, or an artifact together with --overwrite",
            next_step="choose another --out",
        )
    if not overwrite:
        raise OutputExistsError(
            f"'{out}' holds an artifact already.", next_step="add --overwrite, or choose another --out"
        )


def _foreign(folder: Path) -> str | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        entries = [*manifest["segments"], manifest["golden"], manifest["card"]]
        listed = {"manifest.json", *(item["file"] for item in entries)}
    except (OSError, ValueError, KeyError, TypeError):
        listed = set()
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return next((name for name in sorted(names) if name not in listed), None)


def _publish(folder: Path, out: Path, *, overwrite: bool) -> None:
    _refuse_to_lose(out, overwrite=overwrite)  # it may have been written meanwhile
    if out.exists():
        aside = folder.with_suffix(".old")
        out.rename(aside)
        try:
            folder.rename(out)
        except OSError:
            aside.rename(out)
            raise
        shutil.rmtree(aside)
    else:
        folder.rename(out)
    _sync_path(out.parent)


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _sync_path(path)
    _sync_path(folder)


def _sync_path(path: Path) -> None:
    if os.name == "nt":
        return  # it cannot sync what is open for reading only
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        free = shutil.disk_usage(next(parent for parent in out.parents if parent.exists())).free
        raise StorageError(
            f"'{error.filename or out}' cannot be written: {error.strerror} ({free / 2**20:.0f} MiB free).",
            allowed="a folder that can be written, with room for the artifact",
            next_step="free some space or choose another --out",
        ) from error
