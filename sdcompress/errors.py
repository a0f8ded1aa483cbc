"""The errors a user can cause. Each message says what was found, what is allowed and what to do next.

    SdcompressError                 exit code
    +-- UsageError                  2   the command, the recipe or the data it names
    |   +-- RecipeError             2   a recipe key or value
    |   +-- UnknownNameError        2   a method, model, data set, exit ... that does not exist
    |   +-- DataError               2   a data folder, an image, a label
    |   +-- InputError              2   an array given to an engine
    |   +-- OutputExistsError       2   the output folder holds something else
    +-- SetupError                  3   the machine
    |   +-- MissingExtraError       3   a package that an extra of sdcompress installs
    |   +-- StorageError            3   disk full, no permission
    +-- VerificationError           4   a promise that a file does not keep
    |   +-- CheckpointError         4   corrupt, truncated, edited or foreign checkpoint
    |   +-- ArtifactError           4   corrupt, truncated, edited or foreign artifact
    |   +-- CertificateError        4   edited or foreign certificate, or thresholds beyond it
    |   +-- ParityError             4   an export whose outputs differ from the checkpoint's
    +-- BenchmarkError              5   a measurement that cannot be trusted or that regressed
    +-- TrainingDivergedError       6   a loss that is not finite
    +-- Interrupted               130   Ctrl-C; the run can be resumed

Exit code 1 is a bug of ours: a traceback is printed and asked to be reported.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sdcompress.printable import printable

__all__ = [
    "ArtifactError",
    "BenchmarkError",
    "CertificateError",
    "CheckpointError",
    "DataError",
    "InputError",
    "Interrupted",
    "MissingExtraError",
    "OutputExistsError",
    "ParityError",
    "RecipeError",
    "SdcompressError",
    "SetupError",
    "StorageError",
    "TrainingDivergedError",
    "UnknownNameError",
    "UsageError",
    "VerificationError",
    "nearest",
    "requires_extra",
]


_LONGEST_NAME = 200  # characters; looking for one like it takes time that grows with its square


class SdcompressError(Exception):
    """An error that the user can act on.

    What it quotes may come from a stranger's file: control characters are escaped and long texts are cut, here, for the
    terminal and for every log.

    Args:
        found: what was found, as a sentence.
        allowed: what would have been right; empty where that is obvious.
        next_step: what to do or type next.
    """

    exit_code = 1

    def __init__(self, found: str, *, allowed: str = "", next_step: str = "") -> None:
        self.found, self.allowed, self.next_step = map(printable, (found, allowed, next_step))
        lines = [self.found]
        lines += [f"  allowed: {self.allowed}"] if allowed else []
        lines += [f"  next: {self.next_step}"] if next_step else []
        super().__init__("\n".join(lines))


class UsageError(SdcompressError):
    """The command line, the recipe or the data it names."""

    exit_code = 2


class RecipeError(UsageError):
    """A key or a value of a recipe."""


class UnknownNameError(UsageError):
    """A name that nothing has: the message lists the known ones and the nearest.

    Args:
        kind: what was looked for, in the plural ("methods").
        name: what the user wrote.
        known: the names that exist.
        next_step: what to do; by default to choose one of them.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], next_step: str = "") -> None:
        known = sorted(known)
        guess = nearest(name, known)
        hint = f" Did you mean '{guess}'?" if guess else ""
        super().__init__(
            f"There is no '{name}' among the {kind}.{hint}",
            allowed=", ".join(known) or "(none)",
            next_step=next_step or (f"write '{guess}'" if guess else f"choose one of the {kind} above"),
        )


class DataError(UsageError):
    """A data folder, an image or a label."""


class InputError(UsageError):
    """An array given to an engine: shape, dtype, range."""


class OutputExistsError(UsageError):
    """The output folder holds something that would be lost."""


class SetupError(SdcompressError):
    """The machine: a package, a device, the disk."""

    exit_code = 3


class MissingExtraError(SetupError):
    """A package that one of our extras installs is not there.

    Args:
        package: the package that could not be imported.
        extra: the extra of sdcompress that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package '{package}', which is not installed.",
            next_step=f"pip install 'sdcompress[{extra}]'",
        )


class StorageError(SetupError):
    """The disk is full, or a folder cannot be written."""


class VerificationError(SdcompressError):
    """A file does not keep its promise."""

    exit_code = 4


class CheckpointError(VerificationError):
    """A checkpoint that is corrupt, truncated, edited or of another kind."""


class ArtifactError(VerificationError):
    """An artifact that is corrupt, truncated, edited or of another kind."""


class CertificateError(VerificationError):
    """A certificate that was edited, belongs to something else, or does not cover what would run."""


class ParityError(VerificationError):
    """The exported model does not compute what the checkpoint computes."""


class BenchmarkError(SdcompressError):
    """A measurement that cannot be trusted, or one that regressed."""

    exit_code = 5


class TrainingDivergedError(SdcompressError):
    """The loss is not finite; the last good checkpoint is kept."""

    exit_code = 6


class Interrupted(SdcompressError):
    """The user pressed Ctrl-C; what was done is kept."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``, or None when none is."""
    if len(name) > _LONGEST_NAME:
        return None
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


@contextmanager
def requires_extra(extra: str) -> Iterator[None]:
    """Turn a failed import of a third-party package into the one pip line that helps.

    Args:
        extra: the extra of sdcompress that installs what the block imports.

    Raises:
        MissingExtraError: if the block raises ModuleNotFoundError for a package that is not ours.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        if package == "sdcompress":
            raise
        raise MissingExtraError(package, extra) from error
