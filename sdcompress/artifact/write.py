"""Write an artifact in one step: everything into a temporary sibling, the manifest last, then one rename."""

from __future__ import annotations

import datetime as dt
import errno
import json
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdcompress.artifact.read import manifest_fields, walk
from sdcompress.errors import ArtifactError, OutputExistsError
from sdcompress.schema.manifest import FileEntry, Manifest, Provenance
from sdcompress.storage import digest_of, replace_folder, sha256_of, staged_folder, storage_errors

__all__ = ["derived", "entry", "seal", "staged"]


@contextmanager
def staged(out: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends, and vanishes when it fails.

    Args:
        out: the folder to write; its parents are made.
        overwrite: replace an artifact that is there. A folder that holds anything else is never replaced.

    Yields:
        The temporary folder.

    Raises:
        OutputExistsError: if ``out`` holds something that would be lost.
        StorageError: if the disk is full or the folder cannot be written.
    """
    out = Path(out).resolve()  # a link to an artifact stays a link
    if _is_free(out, overwrite=overwrite):
        try:
            with staged_folder(out) as folder:
                yield folder
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST} or error.filename2 != str(out):
                raise
            raise _exists(out) from error  # somebody wrote it meanwhile
    else:
        fresh = out.with_name(f".{out.name}.{secrets.token_hex(4)}.new")
        with staged_folder(fresh) as folder:
            yield folder
        with storage_errors(out):
            replace_folder(fresh, out)


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
        listed = {"manifest.json", *(item["file"] for item in entries)}
    except (ArtifactError, OSError, KeyError, TypeError):
        listed = set()
    return next((name for name in sorted(name for name, _mode in walk(folder)) if name not in listed), None)


def _exists(out: Path) -> OutputExistsError:
    return OutputExistsError(
        f"'{out}' holds an artifact already.", next_step="add --overwrite, or choose another --out"
    )
