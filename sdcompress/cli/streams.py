"""Handle closed or full streams, encodings, a missing working directory, and undecodable arguments."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO, cast

from sdcompress.errors import SdcompressError, SetupError, StorageError, UsageError, brief
from sdcompress.printable import has_surrogates

__all__ = ["check_arguments", "check_working_directory", "flush", "prepare_streams", "storage_error"]

# errors of the disk, the file system or a name on it; others may be a bug of this package
_OF_THE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EILSEQ),
    *(errno.EMFILE, errno.ENFILE),
}


def prepare_streams() -> None:
    """Make the standard streams usable: connect closed ones to /dev/null, escape characters that an encoding lacks."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # takes the lowest free number, which is this stream's; otherwise the next opened file would get it
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = cast("TextIO", _BestEffort(sys.stderr))


class _BestEffort:
    """A stream that ignores write errors: a full log must not stop a training."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def flush() -> None:
    """Write buffered output.

    Raises:
        OSError: if stdout cannot be written; the interpreter does not try again when it exits.
    """
    sys.stderr.flush()
    try:
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout)
        raise


def _discard(stream: TextIO) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def check_working_directory() -> None:
    """Refuse a working directory without meaning for relative names.

    Raises:
        SetupError: if the working directory was removed or cannot be read.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise SetupError(
            "The working directory does not exist any more.",
            allowed="a folder that exists",
            next_step="cd to another folder, or to the same one again if it was created again",
        ) from error


def check_arguments(arguments: Iterable[str]) -> None:
    """Refuse arguments that are not text, because records are.

    Raises:
        UsageError: if an argument was not in the encoding of the locale.
    """
    for argument in arguments:
        if has_surrogates(argument):
            raise UsageError(
                f"An argument is not text in the encoding '{sys.getfilesystemencoding()}': {brief(argument)!a}.",
                allowed="names in UTF-8, the encoding of all records",
                next_step="rename the file, or make a link to it with another name",
            )


def storage_error(error: OSError) -> SdcompressError | None:
    """Return an error of the operating system as a StorageError; None if it may be a bug of this package."""
    if error.errno not in _OF_THE_SYSTEM:
        return None
    where = ascii(brief(str(error.filename)))[1:-1] if error.filename is not None else "The standard output"
    return StorageError(
        f"{where} cannot be used: {error.strerror}.",
        allowed="valid names, writable folders, and free space on the disk",
        next_step="choose another folder, or free some space",
    )
