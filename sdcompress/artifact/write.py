"""Write an artifact in one step: everything into a temporary sibling, the manifest last, then one rename."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sdcompress.artifact.outside import check_outside
from sdcompress.artifact.read import MANIFEST, SIGNATURE, manifest_fields, walk
from sdcompress.errors import ArtifactError, OutputExistsError, StorageError
from sdcompress.schema.manifest import FileEntry, Manifest, Provenance
from sdcompress.storage import clear_leftovers, digest_of, sha256_of, staged_folder

__all__ = ["derived", "entry", "seal", "staged"]

_ANY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def staged(out: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends, and vanishes when it fails.

    Args:
        out: the folder to write; its parents are made.
        overwrite: replace an artifact that is there. A folder that holds anything else is never replaced.

    Yields:
        The temporary folder.

    Raises:
        OutputExistsError: if ``out`` holds something that would be lost, or lies inside an artifact or a training run.
        StorageError: if the disk is full, or the folder or the artifact in it cannot be written.
    """
    out = Path(out).resolve()  # a link to an artifact stays a link
    check_outside(out)
    clear_leftovers(out)
    replace = not _is_free(out, overwrite=overwrite)
    if replace:
        _check_writable(out)
    try:
        with staged_folder(out, replace=replace) as folder:
            yield folder
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST} or error.filename2 != str(out):
            raise
        raise _exists(out) from error  # somebody wrote it meanwhile


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
    rest = Manifest(**{**fields, "digest": "0" * 64}).model_dump(mode="json", exclude={"digest"})
    sealed = {**rest, "digest": digest_of(rest)}
    text = json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8", newline="\n")
    return Manifest.model_validate(sealed)


def derived(old: Manifest) -> Provenance:
    """Where an artifact comes from that is made now, by this command, from another one."""
    return old.provenance.model_copy(
        update={
            "parent": old.digest,
            "created": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "versions": {**old.provenance.versions, "sdcompress": version("sdcompress")},
        }
    )


def _is_free(out: Path, *, overwrite: bool) -> bool:
    """Whether there is nothing at ``out``; False if there is an artifact that may be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return True
    if not out.is_dir():
        raise OutputExistsError(f"'{out}' is a file.", allowed="a folder", next_step="choose another --out")
    if foreign := _foreign(out):
        raise OutputExistsError(
            f"'{out}' holds '{foreign}', which is not part of an artifact.",
            allowed="a new or empty folder, or an artifact together with --overwrite",
            next_step="choose another --out",
        )
    if not overwrite:
        raise _exists(out)
    return False


def _check_writable(folder: Path) -> None:
    """A folder without any write bit is protected, for root too; its files could not be removed after the swap."""
    for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        if not each.stat().st_mode & _ANY_WRITE or not os.access(each, os.W_OK | os.X_OK):
            raise StorageError(
                f"The artifact in '{folder}' is read-only; it was not replaced.",
                allowed="an artifact whose folder this user may write",
                next_step=f"chmod -R u+w {shlex.quote(str(folder))}, or choose another --out",
            )


def _foreign(folder: Path) -> str | None:
    """The name of a file that the manifest does not list, or None: an artifact is replaced only as a whole."""
    try:
        manifest = manifest_fields(folder)
        entries = [*manifest["segments"], manifest["golden"], manifest["card"]]
        if certificate := manifest.get("certificate"):
            entries.append(certificate["evidence"])
        if one_graph := manifest.get("one_graph"):
            entries.append(one_graph)
        for engines in manifest.get("engines", []):
            entries += [*engines["plans"], engines["log"]]
        listed = {MANIFEST, SIGNATURE, *(item["file"] for item in entries)}
    except (ArtifactError, OSError, KeyError, TypeError):
        listed = set()
    return next((name for name in sorted(name for name, _mode in walk(folder)) if name not in listed), None)


def _exists(out: Path) -> OutputExistsError:
    return OutputExistsError(
        f"'{out}' holds an artifact already.", next_step="add --overwrite, or choose another --out"
    )
