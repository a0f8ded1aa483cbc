"""Labelled images of a user's own for a network that is trained: a folder for each class, no data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdcompress.data.sources._listing import Skipped, folders_in, picture_files
from sdcompress.data.sources._photos import FolderSamples
from sdcompress.errors import DataError, nearest
from sdcompress.schema.manifest import Preprocess

__all__ = ["labelled_images"]


def labelled_images(folder: Path, classes: Sequence[str], preprocess: Preprocess) -> FolderSamples:
    """The images in the class folders of a folder, links followed; of what is passed over a warning says how much.

    Args:
        folder: holds a folder for each class, by the class's name; classes may be missing.
        classes: of the network, in the order of its outputs.
        preprocess: of the network.

    Raises:
        DataError: if a folder is named as no class, there is no image, or something cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", next_step="name the folder that holds the class folders")
    passed = Skipped()
    folders = {path.name: path for path in folders_in(folder, passed)}
    if unknown := sorted(folders.keys() - set(classes)):
        guess = nearest(unknown[0], classes)
        raise DataError(
            f"{folder} holds folders that are named as no class of the network: {', '.join(unknown[:5])}."
            + (f" Did you mean '{guess}'?" if guess else ""),
            allowed=", ".join(classes),
            next_step="rename the folders as the classes are named, or remove them",
        )
    files = [picture_files(folders[name], passed) if name in folders else [] for name in classes]
    if not any(files):
        raise DataError(
            f"{folder} holds no class folder with an image in it.",
            allowed=f"a folder for each class, by its name: {', '.join(classes)}",
            next_step="sort the images into folders of these names",
        )
    passed.warn(folder)
    return FolderSamples(folder, files, preprocess)
