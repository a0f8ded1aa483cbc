"""Errors that a user can cause. Each message says what was found, what is allowed and what to do next.

    SdcompressError                 exit code
    +-- UsageError                  2   the command, the recipe or the data it names
    |   +-- RecipeError             2   a recipe key or value
    |   +-- UnknownNameError        2   an unknown method, model, data set, exit ...
    |   +-- DataError               2   a data folder, an image, a label
    |   +-- InputError              2   an array given to an engine
    |   +-- OutputExistsError       2   an output folder with other files
    +-- SetupError                  3   the machine
    |   +-- MissingExtraError       3   a missing package of an extra of sdcompress
    |   +-- BrokenPackageError      3   a package that is installed and cannot be imported
    |   +-- StorageError            3   disk full, no permission
    |   +-- DeviceError             3   a device that fails, or has too little memory
    +-- VerificationError           4   a file that is not what it claims
    |   +-- CheckpointError         4   a damaged or edited checkpoint
    |   +-- ArtifactError           4   a damaged or edited artifact
    |   |   +-- ArtifactChangedError 4   an artifact that was changed while it is in use
    |   +-- CertificateError        4   a certificate that does not cover what runs
    |   +-- SignatureError          4   a missing signature, or one by another key
    |   +-- ParityError             4   an export whose outputs differ from its checkpoint
    |   +-- WeightsError            4   a file of weights that is broken, or would run code
    +-- BenchmarkError              5   an unstable measurement (bench --require-stable)
    +-- TrainingDivergedError       6   a loss that is not finite
    +-- Interrupted               130   Ctrl-C; the run can be resumed

Exit code 1 is a bug in sdcompress; its traceback should be reported.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sdcompress.printable import printable

__all__ = [
    "ArtifactChangedError",
    "ArtifactError",
    "BenchmarkError",
    "BrokenPackageError",
    "CertificateError",
    "CheckpointError",
    "DataError",
    "DeviceError",
    "InputError",
    "Interrupted",
    "MissingExtraError",
    "OutputExistsError",
    "ParityError",
    "RecipeError",
    "SdcompressError",
    "SetupError",
    "SignatureError",
    "StorageError",
    "TrainingDivergedError",
    "UnknownNameError",
    "UsageError",
    "VerificationError",
    "WeightsError",
    "brief",
    "nearest",
    "requires_extra",
]


_MAX_LENGTH = 200
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _MAX_LENGTH
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = 10
_BRIEF.maxlong = 40


class SdcompressError(Exception):
    """An error that the user can act on.

    Quoted text may come from an untrusted file. Control characters are therefore escaped and long texts shortened.

    Args:
        problem: what was found, as a sentence.
        allowed: what is allowed; empty if it is obvious.
        next_step: what to do or type next.
    """

    exit_code = 1

    def __init__(self, problem: str, *, allowed: str = "", next_step: str = "") -> None:
        self.problem, self.allowed, self.next_step = map(printable, (problem, allowed, next_step))
        lines = [self.problem]
        lines += [f"  allowed: {self.allowed}"] if allowed else []
        lines += [f"  next: {self.next_step}"] if next_step else []
        super().__init__("\n".join(lines))


class UsageError(SdcompressError):
    """An invalid command line, recipe or input data."""

    exit_code = 2


class RecipeError(UsageError):
    """An invalid key or value in a recipe."""


class UnknownNameError(UsageError):
    """An unknown name. The message lists the known names and the nearest one.

    Args:
        kind: kind of the name, in the plural ("methods").
        name: the unknown name.
        known: the existing names.
        next_step: default: to choose one of them.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], next_step: str = "") -> None:
        known = sorted(known)
        guess = nearest(name, known)
        hint = f" Did you mean '{guess}'?" if guess else ""
        super().__init__(
            f"There is no '{brief(name)}' among the {kind}.{hint}",
            allowed=", ".join(known) or "(none)",
            next_step=next_step or (f"write '{guess}'" if guess else f"choose one of the {kind} above"),
        )


class DataError(UsageError):
    """An invalid data folder, image or label."""


class InputError(UsageError):
    """An array with an invalid shape, dtype or range."""


class OutputExistsError(UsageError):
    """An output folder whose files would be lost."""


class SetupError(SdcompressError):
    """A problem of the machine: a package, a device or the disk."""

    exit_code = 3


class MissingExtraError(SetupError):
    """A package of an extra is not installed.

    Args:
        package: the package that could not be imported.
        extra: the extra of sdcompress that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package '{package}', which is not installed.",
            next_step=f"pip install 'sdcompress[{extra}]'",
        )


class BrokenPackageError(SetupError):
    """A package of an extra is installed, and cannot be imported.

    Args:
        package: the package; empty: unknown.
        extra: the extra of sdcompress that installs it.
        problem: what the import says.
    """

    def __init__(self, package: str, extra: str, problem: str) -> None:
        named = f"'{package}'" if package else f"of the extra '{extra}'"
        super().__init__(
            f"The package {named} is installed, and cannot be imported: {problem}",
            allowed="an installation that is whole, and of versions that fit",
            next_step=f"pip install --force-reinstall 'sdcompress[{extra}]'",
        )


class StorageError(SetupError):
    """A full disk, or a folder that is not writable."""


class DeviceError(SetupError):
    """A device that fails while it runs an intact graph, or has too little memory for it."""


class VerificationError(SdcompressError):
    """A file that is not what it claims."""

    exit_code = 4


class CheckpointError(VerificationError):
    """A checkpoint that is corrupt, truncated, edited or of another schema."""


class ArtifactError(VerificationError):
    """An artifact that is corrupt, truncated, edited or of another schema."""


class ArtifactChangedError(ArtifactError):
    """A file of an artifact was changed or removed while the artifact was in use."""


class CertificateError(VerificationError):
    """A certificate that was edited, belongs to another artifact, or does not cover what would run."""


class SignatureError(VerificationError):
    """An artifact without a valid signature by the given key."""


class ParityError(VerificationError):
    """An export whose outputs differ from those of its checkpoint."""


class WeightsError(VerificationError):
    """A file of weights that is broken, holds no tensors, or would run code."""


class BenchmarkError(SdcompressError):
    """An unstable measurement."""

    exit_code = 5


class TrainingDivergedError(SdcompressError):
    """A loss that is not finite. The last good checkpoint is kept."""

    exit_code = 6


class Interrupted(SdcompressError):
    """Ctrl-C by the user. Completed work is kept."""

    exit_code = 130


def brief(value: Any) -> str:
    """Return a value for a message: text unchanged, other values as repr, long ones with their middle removed."""
    if not isinstance(value, str):
        return _BRIEF.repr(value)
    return value if len(value) <= _MAX_LENGTH else f"{value[: _MAX_LENGTH - 20]}...{value[-17:]}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to ``name``, or None if none is similar."""
    if len(name) > _MAX_LENGTH:  # the search is quadratic in the length, and no known name is that long
        return None
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


@contextmanager
def requires_extra(extra: str) -> Iterator[None]:
    """Turn a failed import in the block into an error with the pip command.

    Args:
        extra: the extra of sdcompress that installs what the block imports.

    Raises:
        MissingExtraError: if the block raises ModuleNotFoundError for a third-party package.
        BrokenPackageError: if it raises another ImportError for one.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        if package == "sdcompress":
            raise
        raise MissingExtraError(package, extra) from error
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "sdcompress":
            raise
        raise BrokenPackageError(package, extra, str(error)) from error
