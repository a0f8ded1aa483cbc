"""Which files of a folder are read as examples, and what is passed over, which a warning names."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sdcompress.errors import DataError

__all__ = ["Skipped", "entries_of", "files_below", "folders_in"]

_NAMED = 3  # paths that a message names
_Identity = tuple[int, int]  # device and inode


@dataclass
class Skipped:
    """What a listing does not read.

    Attributes:
        accepted: suffixes of files that are read, in lower case.
        suffixes: other files by their suffix, in lower case.
        hidden: folders, and files with an accepted suffix, whose names begin with a dot.
        dangling: links to nothing, and what is no regular file.
        again: folders that a link leads to although they are read already.
        loose: files with an accepted suffix beside the class folders.
    """

    accepted: Collection[str] = ()
    suffixes: Counter[str] = field(default_factory=Counter)
    hidden: list[Path] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)
    again: list[Path] = field(default_factory=list)
    loose: list[Path] = field(default_factory=list)

    def warn(self, root: Path) -> None:
        """Say it in one warning; nothing where nothing was passed over."""
        parts = [
            f"{len(paths)} {kind} ({_named(path.relative_to(root).as_posix() for path in paths)})"
            for kind, paths in (
                ("hidden", self.hidden),
                ("links to nothing or no regular files", self.dangling),
                ("folders that a link leads to a second time", self.again),
                ("files outside of class folders", self.loose),
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
            warnings.warn(f"{root}: passed over are {'; '.join(parts)}.", stacklevel=2)

    def count(self, entry: os.DirEntry[str]) -> None:
        """Count something that is neither a folder nor read."""
        path, suffix = Path(entry.path), Path(entry.name).suffix.lower()
        if entry.name.startswith("."):
            # macOS leaves '._name.jpg' beside 'name.jpg', which holds no example
            self.hidden += [path] if suffix in self.accepted and not entry.name.startswith("._") else []
        elif not entry.is_file():
            self.dangling.append(path)
        else:
            self.suffixes[suffix] += 1


def folders_in(folder: Path, skipped: Skipped) -> list[Path]:
    """The folders in a folder, links to folders included, in the order of their names.

    Raises:
        DataError: if it cannot be read.
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
    """The files with an accepted suffix below a folder, in the order of their paths; links are followed.

    Args:
        folder: searched with the folders in it; hidden ones are passed over.
        skipped: says which suffixes are accepted, and takes what is passed over.

    Raises:
        DataError: if a folder cannot be read, or a link leads back to a folder above it.
    """
    files = _walk(folder, {_identity(folder): folder}, set(), skipped)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _walk(folder: Path, ancestors: dict[_Identity, Path], visited: set[_Identity], skipped: Skipped) -> Iterator[Path]:
    # a folder itself before links to it, so that it goes by its own name
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
                f"The link {path} leads back to {ancestors[identity]}, which holds it.",
                allowed="links to files and to folders elsewhere",
                next_step="remove the link",
            )
        if identity in visited:
            skipped.again.append(path)
            continue
        visited.add(identity)
        yield from _walk(path, {**ancestors, identity: path}, visited, skipped)


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, in no order.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(
            f"The folder {folder} cannot be read: {error.strerror}.",
            allowed="folders that may be listed: examples in others would be missing without a warning",
            next_step="give yourself the right to read it, or move it away",
        ) from error


def _identity(folder: Path) -> _Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _named(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")
