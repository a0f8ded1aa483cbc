"""Samples that are files: each is read when it is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.data.samples import Indices, without_setting
from sdcompress.errors import DataError, InputError
from sdcompress.modalities import Modality
from sdcompress.tasks import Array

__all__ = ["FileSamples", "FolderSamples"]


class FileSamples(ABC):
    """Samples of which each is read when it is asked for, in whatever thread asks.

    A subclass sets ``_targets`` and ``_modality``.
    """

    _targets: Array
    _modality: Modality

    @property
    def targets(self) -> Array:
        """Return all targets, [N, ...]."""
        return self._targets

    @property
    def in_memory(self) -> bool:
        """Return False: the examples are read from files."""
        return False

    def __len__(self) -> int:
        return len(self._targets)

    def originals(self, indices: Indices) -> list[Any]:
        """Return the raw examples at these positions, decoded."""
        return [self._modality.decode(self.file(int(index))) for index in indices]

    def examples(self, indices: Indices) -> Array:
        """Return the examples at these positions, [b, ...]; of none the edge cases say the shape."""
        if len(indices) == 0:
            return np.stack([next(iter(self._modality.edge_cases().values()))])[:0]
        return np.stack([self._example(int(index)) for index in indices])

    def prepared_by(self, modality: Modality) -> FileSamples:
        """Return the same samples, whose examples another modality makes."""
        other = copy(self)
        other._modality = modality  # noqa: SLF001 - of the copy
        return other

    @abstractmethod
    def name(self, position: int) -> str:
        """What ``data.exclude`` calls an example; unique in the data set."""

    @abstractmethod
    def file(self, position: int) -> Any:
        """Return the raw example: the path of its file, its bytes, or what else the modality takes.

        Raises:
            DataError: if they cannot be had.
        """

    def problem(self, position: int) -> str | None:
        """Why an example cannot be used, as far as a short look at its file tells; None where it tells nothing."""
        try:
            self._modality.check_raw(self.file(position))
        except (InputError, DataError) as error:
            return error.problem
        return None

    def _example(self, position: int) -> Array:
        try:
            return self._modality.example(self.file(position))
        except InputError as error:
            name = self.name(position)
            raise DataError(
                f"The example {name} cannot be used: {error.problem}",
                allowed=error.allowed,
                next_step=f"repair it, or go on without it: {without_setting([name])}",
            ) from error


class FolderSamples(FileSamples):
    """The samples of a split, a list of files for each class.

    Args:
        root: the folder that names are relative to.
        classes: the files of each class; a class may have none.
        modality: of the data set.
    """

    def __init__(self, root: Path, classes: Sequence[Sequence[Path]], modality: Modality) -> None:
        self._root, self._modality = root, modality
        self._paths = [path for paths in classes for path in paths]
        self._targets = np.repeat(np.arange(len(classes)), [len(paths) for paths in classes]).astype(np.int64)

    def name(self, position: int) -> str:
        """Return the path below data.dir."""
        return self._paths[position].relative_to(self._root).as_posix()

    def file(self, position: int) -> Path:
        """Return the path."""
        return self._paths[position]

    def listing(self, excluded: Collection[int]) -> list[str]:
        """Return the name and the size of each file; of those that are left out the size does not matter."""
        return [
            f"{self.name(position)}\t{'left out' if position in excluded else path.stat().st_size}"
            for position, path in enumerate(self._paths)
        ]
