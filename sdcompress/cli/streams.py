"""Handle the environment of a command: closed or full streams, encodings, working directory, undecodable names."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO, cast

from sdcompress.errors import SdcompressError, SetupError, StorageError, UsageError, brief

__all__ = ["as_error", "check_arguments", "check_working_directory", "flush", "prepare_streams"]

# of the disk, the file system or a name on it; what else the system refuses may be a bug of ours
_SURROUNDINGS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EILSEQ),
    *(errno.EMFILE, errno.ENFILE),
}


def prepare_streams() -> None:
    """Make the standard streams usable: closed ones lead nowhere, and what an encoding lacks is written as escapes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # takes the lowest free number, which is this stream's: or the next file would be written to by mistake
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = cast("TextIO", _BestEffort(sys.stderr))


class _BestEffort:
    """A stream for messages, whose failure ends no work: a full log must not stop a training."""

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
            _lead_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def flush() -> None:
    """Write what is still held back.

    Raises:
        OSError: if stdout cannot be written; the interpreter does not try again at its end.
    """
    sys.stderr.flush()
    try:
        sys.stdout.flush()
    except OSError:
        _lead_nowhere(sys.stdout)
        raise


def _lead_nowhere(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def check_working_directory() -> None:
    """Refuse to work where relative names mean nothing.

    Raises:
        SetupError: if the working directory was removed or cannot be read.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise SetupError(
            "The working directory is not there any more.",
            allowed="a folder that exists",
            next_step="cd to another folder, or to the same one again if it was made anew",
        ) from error


def check_arguments(arguments: Iterable[str]) -> None:
    """Refuse names that are no text, which no record could hold.

    Raises:
        UsageError: if an argument was not in the encoding of the locale.
    """
    for argument in arguments:
        # how Python carries bytes that are no text
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise UsageError(
                f"An argument is not text in the encoding '{sys.getfilesystemencoding()}': {brief(argument)!a}.",
                allowed="names in UTF-8: they stand in records that are",
                next_step="rename the file, or make a link to it with another name",
            )


def as_error(error: OSError) -> SdcompressError | None:
    """Return the message for what the system refused, None where that may be a bug of ours."""
    if error.errno not in _SURROUNDINGS:
        return None
    where = ascii(brief(str(error.filename)))[1:-1] if error.filename is not None else "The standard output"
    return StorageError(
        f"{where} cannot be used: {error.strerror}.",
        allowed="names, folders and files that the system takes, on a disk with free space",
        next_step="choose another place, or free some space",
    )
