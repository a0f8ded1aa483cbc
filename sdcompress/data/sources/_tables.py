"""Tables with labels: their files, and texts in them made a source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcompress.data.rows import RawRows, class_indices, class_names, rows_digest
from sdcompress.data.source import Source
from sdcompress.data.sources._listing import Skipped, files_below
from sdcompress.data.sources._photos import has_splits, published_splits
from sdcompress.errors import DataError, RecipeError
from sdcompress.modalities._rows import SUFFIXES, rows_of
from sdcompress.schema import recipe

__all__ = ["Table", "excluded_rows", "read_table", "table_files", "texts_source"]

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


def table_files(root: Path) -> dict[str, Path]:
    """Return the file of each split of a folder.

    Raises:
        DataError: if there is none, or their names are no splits.
    """
    skipped = Skipped(_TABLES)
    files = [file for file in files_below(root, skipped) if file.parent == root] if root.is_dir() else []
    if not files:
        raise DataError(
            f"{root} holds no table." if root.is_dir() else f"data.dir is {root}, which is not a folder.",
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
        DataError: as ``rows_of``.
    """
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
    gone = excluded_rows(tables, excluded, place)
    classes = tuple(classes or class_names(tables["train"].labels, f"{place} (training rows)"))
    splits = {
        split: RawRows(
            table.names, table.raw, class_indices(table.labels, classes, table.names), gone.get(split, frozenset())
        )
        for split, table in tables.items()
    }
    digest, names = rows_digest([(table.names, table.raw) for table in tables.values()])
    return Source(
        outputs=classes,
        modality=recipe.Modality(name="text", columns=list(columns)),
        digest=digest,
        names=names,
        left_out=gone,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
    )


def excluded_rows(tables: Mapping[str, Table], excluded: Collection[str], place: Path) -> dict[str, frozenset[int]]:
    """Return the positions of the rows that ``data.exclude`` names, by split.

    Raises:
        RecipeError: if a name belongs to no row.
    """
    if not excluded:
        return {}
    gone = {
        split: frozenset(at for at, name in enumerate(table.names) if name in excluded)
        for split, table in tables.items()
    }
    there = {name for split, positions in gone.items() for name in (tables[split].names[at] for at in positions)}
    if unknown := sorted(set(excluded) - there):
        raise RecipeError(
            f"data.exclude names rows that are not in {place}: {', '.join(unknown)}.",
            allowed=f"names such as '{tables['train'].names[0]}'",
            next_step="correct the names",
        )
    return gone
