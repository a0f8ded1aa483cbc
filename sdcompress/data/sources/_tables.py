"""Tables with labels: their files, and texts in them made a source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcompress.data.rows import RawRows, class_indices, class_names, rows_digest
from sdcompress.data.source import Source
from sdcompress.data.sources._listing import entries_of, no_folder
from sdcompress.data.sources._splits import has_splits, left_out, published_splits
from sdcompress.errors import DataError, RecipeError
from sdcompress.modalities import Modality
from sdcompress.modalities._rows import SUFFIXES, rows_of
from sdcompress.schema import recipe
from sdcompress.tasks import Array

__all__ = [
    "Table",
    "check_label_apart",
    "check_training_rows",
    "read_table",
    "row_classes",
    "rows_source",
    "table_files",
    "texts_source",
]

_TABLES = SUFFIXES - {".txt"}  # which has no labels


@dataclass(frozen=True)
class Table:
    """The rows of a split.

    Attributes:
        names: of N rows.
        raw: N texts, or N pairs of them; or N mappings, column -> value.
        labels: N of them, as the file has them.
    """

    names: Sequence[str]
    raw: Sequence[Any]
    labels: Sequence[Any]

    def __len__(self) -> int:
        return len(self.raw)

    def name(self, position: int) -> str:
        """Return what ``data.exclude`` calls a row."""
        return self.names[position]


def table_files(root: Path) -> dict[str, Path]:
    """Return the file of each split of a folder.

    Raises:
        DataError: if there is none, or their names are no splits.
    """
    if not root.is_dir():
        raise no_folder(root, "tables")
    entries = [entry for entry in entries_of(root) if entry.is_file()]
    paths = sorted(Path(entry.path) for entry in entries if not entry.name.startswith("."))
    files = [path for path in paths if path.suffix.lower() in _TABLES]
    if not files:
        raise DataError(
            f"{root} holds no table.",
            allowed=f"train and test, each a file that ends in {', '.join(sorted(_TABLES))}",
            next_step="set data.dir to the folder with the tables",
        )
    by_stem = {file.stem: file for file in files}
    if len(by_stem) < len(files):
        raise DataError(
            f"{root} holds two tables of one name: {', '.join(sorted(file.name for file in files))}.",
            allowed="one file for each split",
            next_step="move the others out of the folder",
        )
    if len(files) == 1:
        return {"train": files[0]}
    if not has_splits(by_stem):
        raise DataError(
            f"{root} holds {', '.join(sorted(file.name for file in files))}, of which none is called train.",
            allowed="one table, or train, test and optionally validation (or val, valid, dev)",
            next_step="rename the files as the splits are called",
        )
    return {split: by_stem[name] for split, name in published_splits(by_stem, root).items()}


def read_table(file: Path, columns: Sequence[str], label: str) -> Table:
    """Read a split; rows are named by the file's name and the line.

    Raises:
        RecipeError: if the label is one of the columns.
        DataError: as ``rows_of``.
    """
    check_label_apart(columns, (label,))
    names, raw, labels = list[str](), list[Any](), list[Any]()
    for name, (*texts, given) in rows_of(file, (*columns, label)):
        names.append(Path(name).name)
        raw.append(tuple(texts) if len(columns) == 2 else texts[0])
        labels.append(given)
    return Table(names, raw, labels)


def texts_source(
    tables: Mapping[str, Table],
    columns: Sequence[str],
    place: Path,
    excluded: Collection[str] = (),
    *,
    classes: Sequence[str] | None = None,
) -> Source:
    """Return a source of texts with labels.

    Args:
        tables: by split: train, and val and test where there are such splits.
        columns: of the texts, for predictions of files later.
        place: of the data, for messages.
        excluded: names of rows to leave out.
        classes: names of the classes; default: of the training labels.

    Raises:
        RecipeError: if there are more than two columns, or a row to leave out is not there.
        DataError: if there is no row, or a label is not one of the classes.
    """
    if len(columns) not in {1, 2} or len(set(columns)) != len(columns):
        raise RecipeError(
            f"data.columns is {list(columns)}.",
            allowed="one column of texts, or two for pairs",
            next_step="--set 'data.columns=[text]'",
        )
    check_training_rows(tables, place)
    gone = left_out(tables, excluded, place)
    classes, targets = row_classes(tables, place, gone, classes)
    return rows_source(
        tables,
        targets,
        gone,
        outputs=classes,
        modality=recipe.ModalitySection(name="text", columns=list(columns)),
        columns=columns,
    )


def check_label_apart(columns: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse a label that the network would be given as an input: every figure would be too good.

    Raises:
        RecipeError: if a column is both.
    """
    if both := [name for name in labels if name in columns]:
        others = ", ".join(name for name in columns if name not in labels)
        raise RecipeError(
            f"The column '{both[0]}' is in data.columns and in data.label: the network would be given its answer.",
            allowed="a label that is none of the columns",
            next_step=f"--set 'data.columns=[{others}]'" if others else "correct data.columns or data.label",
        )


def check_training_rows(tables: Mapping[str, Table], place: Path) -> None:
    """Refuse a training split without a row.

    Raises:
        DataError: if it is one.
    """
    if not len(tables["train"]):
        raise DataError(f"{place} holds no training row.", next_step="check the file")


def row_classes(
    tables: Mapping[str, Table],
    place: Path,
    gone: Mapping[str, Collection[int]],
    classes: Sequence[str] | None = None,
) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Return the names of the classes, and the targets of each split, int64 [N].

    Args:
        tables: by split.
        place: of the data, for messages.
        gone: positions of rows to leave out, by split: their labels are not looked at.
        classes: names of the classes; default: of the training labels.

    Raises:
        DataError: if a label cannot be used.
    """
    train, without = tables["train"], gone.get("train", ())
    kept = [at for at in range(len(train)) if at not in without]
    labels, rows = [train.labels[at] for at in kept], [train.names[at] for at in kept]
    names = tuple(classes or class_names(labels, rows, f"{place} (training rows)"))
    return names, {
        split: class_indices(table.labels, names, table.names, gone.get(split, ())) for split, table in tables.items()
    }


def rows_source(
    tables: Mapping[str, Table],
    targets: Mapping[str, Array],
    gone: Mapping[str, frozenset[int]],
    *,
    outputs: Sequence[str],
    modality: Modality | recipe.ModalitySection,
    columns: Sequence[str],
    task: str = "classification",
    fit: Callable[[Any, Array], Modality] | None = None,
) -> Source:
    """Return a source of rows.

    Args:
        tables: by split: train, and val and test where there are such splits.
        targets: of each split, [N, ...].
        gone: positions of rows to leave out, by split.
        outputs: as those of ``Source``.
        modality: likewise.
        columns: likewise.
        task: likewise.
        fit: likewise.
    """
    splits = {
        split: RawRows(table.names, table.raw, targets[split], gone.get(split, frozenset()))
        for split, table in tables.items()
    }
    digest, names = rows_digest([(table.names, table.raw) for table in tables.values()])
    return Source(
        outputs=tuple(outputs),
        modality=modality,
        digest=digest,
        names=names,
        left_out=gone,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        columns=tuple(columns),
        task=task,
        fit=fit,
    )
