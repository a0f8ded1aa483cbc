"""Find, check and download data sets in the folder layout of torchvision.

``_cifar`` and ``_idx`` read the files without torchvision, so that artifacts can be evaluated without torch. Only a
download needs torchvision.
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
    """The published files of a data set.

    Attributes:
        name: name in recipes.
        torchvision: name of the class in torchvision.
        folder: folder of the files, relative to the root of that class.
        files: MD5 of each, by name.
    """

    name: str
    torchvision: str
    folder: str
    files: dict[str, str]

    def locate(self, spec: recipe.Data) -> Path:
        """Return the folder with the files, below ``data.dir`` or below ``data.dir/name``; download it if allowed.

        A different MD5 gives only a warning: readers refuse incomplete files, and the data fingerprint identifies the
        copy.

        Raises:
            DataError: if a file is missing, and a download is not allowed or fails.
            MissingExtraError: if torchvision is needed for the download and not installed.
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
        """Read the bytes of one file.

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
        # idx files may be present with or without .gz
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
            "data.download=true in a recipe, or 'sdcompress evaluate --download' after training",
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
                f"'{self.name}'. They are read anyway; results may differ from published ones.",
                stacklevel=2,
            )
