"""List the files of a folder that are examples. Everything that is skipped is counted and reported."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sdcompress.errors import DataError

__all__ = ["Skipped", "entries_of", "files_below", "folders_in", "no_folder"]

_NAMED = 3  # paths in a message
_Identity = tuple[int, int]  # device and inode


@dataclass
class Skipped:
    """Files and folders that a listing skips.

    Attributes:
        accepted: suffixes of files that are read, in lower case.
        suffixes: other files by their suffix, in lower case.
        hidden: folders, and files with an accepted suffix, whose names begin with a dot.
        dangling: broken links, and files that are not regular.
        again: linked folders that were already read.
        loose: files with an accepted suffix outside class folders.
    """

    accepted: Collection[str] = ()
    suffixes: Counter[str] = field(default_factory=Counter)
    hidden: list[Path] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)
    again: list[Path] = field(default_factory=list)
    loose: list[Path] = field(default_factory=list)

    def warn(self, root: Path) -> None:
        """Emit one warning about everything that was skipped, if anything was."""
        parts = [
            f"{len(paths)} {kind} ({_named(path.relative_to(root).as_posix() for path in paths)})"
            for kind, paths in (
                ("hidden", self.hidden),
                ("broken links or special files", self.dangling),
                ("linked folders that were already read", self.again),
                ("files outside class folders", self.loose),
            )
            if paths
        ]
        if self.suffixes:
            kinds = ", ".join(
                f"{count} {suffix or 'without a suffix'}" for suffix, count in self.suffixes.most_common()
            )
            total = sum(self.suffixes.values())
            parts.append(f"{total} files that do not end in {', '.join(sorted(self.accepted))}: {kinds}")
        if parts:
            warnings.warn(f"Skipped in {root}: {'; '.join(parts)}.", stacklevel=2)

    def count(self, entry: os.DirEntry[str]) -> None:
        """Count a file that is not read."""
        path, suffix = Path(entry.path), Path(entry.name).suffix.lower()
        if entry.name.startswith("."):
            # macOS writes '._name.jpg' beside 'name.jpg', which is not an image
            self.hidden += [path] if suffix in self.accepted and not entry.name.startswith("._") else []
        elif not entry.is_file():
            self.dangling.append(path)
        else:
            self.suffixes[suffix] += 1


def folders_in(folder: Path, skipped: Skipped) -> list[Path]:
    """Return the folders in a folder and links to folders, sorted by name.

    Raises:
        DataError: if the folder cannot be read.
    """
    folders = []
    for entry in entries_of(folder):
        if entry.is_dir() and not entry.name.startswith("."):
            folders.append(Path(entry.path))
        elif entry.is_dir():
            skipped.hidden.append(Path(entry.path))
        elif Path(entry.name).suffix.lower() in skipped.accepted and not entry.name.startswith("."):
            skipped.loose.append(Path(entry.path))
        elif entry.is_symlink() and not entry.is_file():
            skipped.dangling.append(Path(entry.path))
    return sorted(folders, key=lambda path: path.name)


def files_below(folder: Path, skipped: Skipped) -> list[Path]:
    """Return the files below a folder that have an accepted suffix, sorted by path. Links are followed.

    Args:
        folder: searched recursively, without hidden folders.
        skipped: says which suffixes are accepted, and receives what is skipped.

    Raises:
        DataError: if a folder cannot be read, or a link leads back to a folder above it.
    """
    files = _walk(folder, {_identity(folder): folder}, set(), skipped)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _walk(folder: Path, ancestors: dict[_Identity, Path], visited: set[_Identity], skipped: Skipped) -> Iterator[Path]:
    # folders before links to them, so that an image has the path of its real folder
    for entry in sorted(entries_of(folder), key=lambda entry: (entry.is_symlink(), entry.name)):
        path = Path(entry.path)
        if not entry.is_dir():
            if entry.is_file() and path.suffix.lower() in skipped.accepted and not entry.name.startswith("."):
                yield path
            else:
                skipped.count(entry)
            continue
        if entry.name.startswith("."):
            skipped.hidden.append(path)
            continue
        identity = _identity(path)
        if identity in ancestors:
            raise DataError(
                f"The link {path} leads back to {ancestors[identity]}, which contains it.",
                allowed="links to files and to folders outside",
                next_step="remove the link",
            )
        if identity in visited:
            skipped.again.append(path)
            continue
        visited.add(identity)
        yield from _walk(path, {**ancestors, identity: path}, visited, skipped)


def no_folder(root: Path, contents: str) -> DataError:
    """Return the error for a ``data.dir`` that is no folder.

    Args:
        root: the folder that the recipe names.
        contents: what it should hold.
    """
    looked_for = "" if root.is_absolute() else f", looked for in {Path.cwd()}"
    return DataError(
        f"data.dir is {root}{looked_for}, which is not a folder.",
        allowed=f"the folder of the {contents}",
        next_step="name the folder that holds this file"
        if root.is_file()
        else "correct data.dir (--data-dir FOLDER), or work in the folder that it is relative to",
    )


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, unsorted.

    Raises:
        DataError: if the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(
            f"The folder {folder} cannot be read: {error.strerror}.",
            allowed="readable folders; examples in others would be missing",
            next_step="change its permissions, or move it away",
        ) from error


def _identity(folder: Path) -> _Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _named(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")
