"""Examples of a user's own with labels, for a trained network: a folder for each class, or a table; no data set."""

from __future__ import annotations

from pathlib import Path

from sdcompress.data.files import FolderSamples
from sdcompress.data.rows import RawRows, class_indices
from sdcompress.data.samples import Samples
from sdcompress.data.sources._listing import Skipped, files_below, folders_in
from sdcompress.errors import DataError, UsageError, nearest
from sdcompress.modalities import Modality
from sdcompress.tasks import Task

__all__ = ["labelled_examples"]


def labelled_examples(path: Path, task: Task, modality: Modality, label: str) -> Samples:
    """The examples in the class folders of a folder, links followed, or in the rows of a table.

    Of what is passed over in folders a warning says how much.

    Args:
        path: a folder that holds a folder for each class, by the class's name; classes may be missing. Or a table.
        task: of the network.
        modality: of the network.
        label: the column of a table's labels: names of classes, or their numbers.

    Raises:
        UsageError: if the targets of the task are no numbers of classes, or the modality has no tables.
        DataError: if a folder or a label is no class, there is no example, or something cannot be read.
    """
    if not task.single_label:
        raise UsageError(
            f"Class folders and labels give the numbers of classes, and the network's task is '{task.record.name}'.",
            allowed="a network whose targets are classes",
            next_step="measure on the data set: leave the folder out",
        )
    return _rows(path, task, modality, label) if path.is_file() else _folders(path, task, modality)


def _rows(file: Path, task: Task, modality: Modality, label: str) -> Samples:
    rows = list(modality.labelled_rows(file, label))
    if not rows:
        raise DataError(f"{file} holds no row.", next_step="name a table with rows")
    names, raw, labels = zip(*rows, strict=True)
    try:
        return RawRows(names, raw, class_indices(labels, task.outputs, names)).prepared_by(modality)
    except DataError as error:
        # such a table has no recipe that could leave one out
        raise DataError(error.problem, allowed=error.allowed, next_step="correct or remove the row") from error


def _folders(folder: Path, task: Task, modality: Modality) -> Samples:
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
