"""Folders as torchvision lays them out: find one, check it, let torchvision download it.

The files are read without torchvision (see ``_cifar`` and ``_idx``), so that an artifact can be evaluated on a machine
that has no torch; only a download needs it.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from sdcompress.data.source import data_folder
from sdcompress.errors import DataError, requires_extra
from sdcompress.schema import recipe

__all__ = ["Published"]


@dataclass(frozen=True)
class Published:
    """A data set as it was published.

    Attributes:
        name: our name.
        torchvision: the name of torchvision's class.
        folder: where that class keeps the files, below its root.
        files: MD5 of each, by name.
    """

    name: str
    torchvision: str
    folder: str
    files: dict[str, str]

    def locate(self, spec: recipe.Data) -> Path:
        """The folder with the files: below ``data.dir``, or below a folder of the set's name in it.

        An MD5 that differs is only warned of: the readers refuse what is incomplete, and the fingerprint of the data
        tells two copies apart.

        Raises:
            DataError: if it is not there, or a file is missing, and a download is not allowed or fails.
            MissingExtraError: if the download needs torchvision.
        """
        root = data_folder(spec)
        candidates = [root / self.folder, root / self.name / self.folder]
        folder = next((candidate for candidate in candidates if self._complete(candidate)), None)
        if folder is None and spec.download:
            self._download(root)
            folder = candidates[0]
        if folder is None:
            raise self._missing(root, next((candidate for candidate in candidates if candidate.is_dir()), None))
        self._check_md5(folder)
        return folder

    def read(self, folder: Path, file: str) -> bytes:
        """The bytes of one file.

        Raises:
            DataError: if it cannot be read.
        """
        path = self._path(folder, file)
        assert path is not None, file
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror}.", next_step="check the permissions of the folder"
            ) from error

    def _path(self, folder: Path, file: str) -> Path | None:
        # a download leaves idx files with and without .gz; people keep one of the two
        candidates = (folder / file, folder / file.removesuffix(".gz"))
        return next((path for path in candidates if path.is_file()), None)

    def _complete(self, folder: Path) -> bool:
        return all(self._path(folder, file) for file in self.files)

    def _missing(self, root: Path, folder: Path | None) -> DataError:
        if folder is None:
            problem = f"'{self.name}' is not in {root.resolve()}: there is no folder '{self.folder}'."
        else:
            absent = [file for file in self.files if self._path(folder, file) is None]
            problem = f"'{self.name}' is incomplete: {folder.resolve()} has no {', '.join(absent)}."
        return DataError(
            problem,
            allowed=f"a folder '{self.folder}' with {', '.join(self.files)}",
            next_step="set data.dir (--data-dir) to the folder that holds it, or let torchvision fetch it: "
            "data.download=true in a recipe, 'sdcompress evaluate --download' for what is trained already",
        )

    def _download(self, root: Path) -> None:
        with requires_extra("vision"):
            from torchvision import datasets  # only a download needs it
        try:
            getattr(datasets, self.torchvision)(str(root), download=True)
        except (OSError, RuntimeError, HTTPException) as error:
            raise DataError(
                f"torchvision could not download '{self.name}' into {root.resolve()}: {error}",
                next_step=f"check the network, or put {', '.join(self.files)} into {(root / self.folder).resolve()}",
            ) from error

    def _check_md5(self, folder: Path) -> None:
        different = []
        for file, published in self.files.items():
            path = folder / file
            if path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != published:
                different.append(file)
        if different:
            warnings.warn(
                f"{', '.join(different)} in {folder.resolve()} have another MD5 than the published files of "
                f"'{self.name}'. They are read all the same; figures may differ from published ones.",
                stacklevel=2,
            )
