"""Tables of texts with labels: read, and made a source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcompress.data.rows import RawRows, class_indices, class_names, rows_digest
from sdcompress.data.source import Source
from sdcompress.errors import RecipeError
from sdcompress.modalities._rows import rows_of
from sdcompress.schema import recipe

__all__ = ["Table", "read_table", "texts_source"]


@dataclass(frozen=True)
class Table:
    """The rows of a split.

    Attributes:
        names: of N rows.
        raw: N texts, or N pairs of them.
        labels: N of them, as the file has them.
    """

    names: Sequence[str]
    raw: Sequence[Any]
    labels: Sequence[Any]


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
    gone = _left_out(tables, excluded, place)
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


def _left_out(tables: Mapping[str, Table], excluded: Collection[str], place: Path) -> dict[str, frozenset[int]]:
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
