"""Write an artifact atomically: into a temporary folder, the manifest last, then one rename."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sdcompress
from sdcompress.artifact.card import card_of
from sdcompress.artifact.output_path import check_outside
from sdcompress.artifact.read import MANIFEST, SIGNATURE, Artifact, manifest_fields, walk
from sdcompress.errors import ArtifactError, OutputExistsError, StorageError
from sdcompress.schema.manifest import FileEntry, Manifest, Provenance
from sdcompress.storage import clear_leftovers, digest_of, sha256_of, staged_folder

__all__ = ["derived_provenance", "entry", "finish", "rewrite", "seal", "staged"]

_CARD = "README.md"
_UNKNOWN = "0" * 64
_ANY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def staged(
    out: Path | str,
    *,
    overwrite: bool = False,
    kind: str = "artifact",
    listed: Callable[[Path], set[str]] | None = None,
) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``out`` when the block ends, and is removed if it fails.

    Args:
        out: the folder to write; parents are created.
        overwrite: replace an existing folder of this kind. A folder with other files is never replaced.
        kind: what is written, for messages.
        listed: returns the names of the files that an existing folder of this kind may hold; default: an artifact's.

    Yields:
        The temporary folder.

    Raises:
        OutputExistsError: if ``out`` holds other files, or lies inside an artifact or a training run.
        StorageError: if the disk is full or the folder is not writable.
    """
    out = Path(out).resolve()  # replace the target of a link, not the link
    check_outside(out)
    clear_leftovers(out)
    replace = not _is_free(out, kind, listed or _listed_in_manifest, overwrite=overwrite)
    if replace:
        _check_writable(out, kind)
    try:
        with staged_folder(out, replace=replace) as folder:
            yield folder
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST} or error.filename2 != str(out):
            raise
        raise _exists(out, kind) from error  # another process wrote it in the meantime


def entry(folder: Path, name: str) -> FileEntry:
    """Return the manifest entry of an existing file: name, SHA-256 and size.

    Args:
        folder: the artifact folder, or the temporary one.
        name: the name of the file inside it.
    """
    return FileEntry(file=name, sha256=sha256_of(folder / name), bytes=(folder / name).stat().st_size)


def seal(folder: Path, **fields: Any) -> Manifest:
    """Compute the digest and write manifest.json. Call it last.

    Args:
        folder: the artifact folder, or the temporary one.
        fields: all fields of ``Manifest`` except ``digest``.
    """
    unsealed = Manifest(**{**fields, "digest": _UNKNOWN}).model_dump(mode="json", exclude={"digest"})
    sealed = {**unsealed, "digest": digest_of(unsealed)}
    text = json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8", newline="\n")
    return Manifest.model_validate(sealed)


def derived_provenance(old: Manifest) -> Provenance:
    """Return the provenance of an artifact that this command derives from another one."""
    return old.provenance.model_copy(
        update={
            "parent": old.digest,
            "created": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "versions": {**old.provenance.versions, "sdcompress": sdcompress.__version__},
        }
    )


def rewrite(old: Artifact, folder: Path, **changed: Any) -> Manifest:
    """Write a copy of an artifact with changed fields and a new card, and seal it.

    Args:
        old: the artifact; its digest becomes the parent.
        folder: the output, which already holds the new files.
        changed: fields of ``Manifest``. ``provenance`` is derived if it is not given. Files that are no longer listed
            are not copied.
    """
    fields = {name: getattr(old.manifest, name) for name in Manifest.model_fields.keys() - {"card", "digest"}}
    fields |= {"provenance": derived_provenance(old.manifest), **changed}
    listed = _draft(fields).files
    for file in old.manifest.files:
        target = folder / file.file
        if file in listed and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old.file(file), target)
    return finish(folder, **fields)


def finish(folder: Path, **fields: Any) -> Manifest:
    """Write the card and seal the folder.

    Args:
        folder: the artifact folder, or the temporary one.
        fields: all fields of ``Manifest`` except ``card`` and ``digest``.
    """
    (folder / _CARD).write_text(card_of(_draft(fields)), encoding="utf-8", newline="\n")
    return seal(folder, **fields, card=entry(folder, _CARD))


def _draft(fields: Mapping[str, Any]) -> Manifest:
    """The manifest before its card and its digest are known."""
    return Manifest(**fields, card=FileEntry(file=_CARD, sha256=_UNKNOWN, bytes=0), digest=_UNKNOWN)


def _is_free(out: Path, kind: str, listed: Callable[[Path], set[str]], *, overwrite: bool) -> bool:
    """Return True if ``out`` is free, False if it is a folder that may be replaced; raise otherwise."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return True
    if not out.is_dir():
        raise OutputExistsError(f"'{out}' is a file.", allowed="a folder", next_step="choose another --out")
    if unlisted := _unlisted_file(out, listed):
        raise OutputExistsError(
            f"'{out}' holds '{unlisted}', which no {kind} lists.",
            allowed=f"a new or empty folder, or {_a(kind)} together with --overwrite",
            next_step="choose another --out",
        )
    if not overwrite:
        raise _exists(out, kind)
    return False


def _check_writable(folder: Path, kind: str) -> None:
    """Refuse a read-only folder, for root too: its files could not be removed after the swap."""
    for directory in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        if not directory.stat().st_mode & _ANY_WRITE or not os.access(directory, os.W_OK | os.X_OK):
            raise StorageError(
                f"The {kind} in '{folder}' is read-only; it was not replaced.",
                allowed=f"{_a(kind)} whose folder this user may write",
                next_step=f"chmod -R u+w {shlex.quote(str(folder))}, or choose another --out",
            )


def _unlisted_file(folder: Path, listed: Callable[[Path], set[str]]) -> str | None:
    """Return the name of a file that is not listed, or None. Such a folder is never replaced."""
    names = listed(folder)
    return next((name for name in sorted(name for name, _mode in walk(folder)) if name not in names), None)


def _listed_in_manifest(folder: Path) -> set[str]:
    try:
        return {MANIFEST, SIGNATURE, *_listed_files(manifest_fields(folder))}
    except (ArtifactError, OSError):
        return set()


def _listed_files(fields: Any) -> Iterator[str]:
    """Yield the names in all file entries of a manifest, possibly of another schema version."""
    if isinstance(fields, dict):
        if isinstance(fields.get("file"), str) and "sha256" in fields:
            yield fields["file"]
        fields = list(fields.values())
    if isinstance(fields, list):
        for value in fields:
            yield from _listed_files(value)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _exists(out: Path, kind: str) -> OutputExistsError:
    return OutputExistsError(f"'{out}' already holds {_a(kind)}.", next_step="add --overwrite, or choose another --out")
