"""Examples of a user's own with labels, for a network that is trained: a folder for each class, no data set."""

from __future__ import annotations

from pathlib import Path

from sdcompress.data.files import FolderSamples
from sdcompress.data.sources._listing import Skipped, files_below, folders_in
from sdcompress.errors import DataError, UsageError, nearest
from sdcompress.modalities import Modality
from sdcompress.tasks import Task

__all__ = ["labelled_folder"]


def labelled_folder(folder: Path, task: Task, modality: Modality) -> FolderSamples:
    """The examples in the class folders of a folder, links followed; of what is passed over a warning says how much.

    Args:
        folder: holds a folder for each class, by the class's name; classes may be missing.
        task: of the network.
        modality: of the network.

    Raises:
        UsageError: if the targets of the task are no numbers of classes.
        DataError: if a folder is named as no class, there is no example, or something cannot be read.
    """
    if not task.single_label:
        raise UsageError(
            f"A folder for each class gives the numbers of classes, and the network's task is '{task.record.name}'.",
            allowed="a network whose targets are classes",
            next_step="measure on the data set: leave the folder out",
        )
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", next_step="name the folder that holds the class folders")
    skipped = Skipped(modality.suffixes)
    folders = {path.name: path for path in folders_in(folder, skipped)}
    if unknown := sorted(folders.keys() - set(task.outputs)):
        guess = nearest(unknown[0], task.outputs)
        raise DataError(
            f"{folder} holds folders that are named as no class of the network: {', '.join(unknown[:5])}."
            + (f" Did you mean '{guess}'?" if guess else ""),
            allowed=", ".join(task.outputs),
            next_step="rename the folders as the classes are named, or remove them",
        )
    files = [files_below(folders[name], skipped) if name in folders else [] for name in task.outputs]
    if not any(files):
        raise DataError(
            f"{folder} holds no class folder with a file in it that ends in {', '.join(sorted(modality.suffixes))}.",
            allowed=f"a folder for each class, by its name: {', '.join(task.outputs)}",
            next_step="sort the files into folders of these names",
        )
    skipped.warn(folder)
    return FolderSamples(folder, files, modality)
