"""Tables of numbers and categories made a source: which column is which, and what the training rows say of each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sdcompress.data.source import Source
from sdcompress.data.sources._splits import left_out
from sdcompress.data.sources._tables import Table, check_label_apart, check_training_rows, row_classes, rows_source
from sdcompress.errors import DataError
from sdcompress.modalities._rows import columns_of, rows_of
from sdcompress.modalities.table import Table as TableModality
from sdcompress.tasks import Array

__all__ = ["columns_source", "read_rows"]


def read_rows(file: Path, columns: Sequence[str], labels: Sequence[str], *, several: bool) -> Table:
    """Read a split; rows are named by the file's name and the line.

    Args:
        file: a table with names of columns.
        columns: of the examples; empty: all but the labels.
        labels: columns of the labels.
        several: whether a label is a tuple, of one value for each of these columns, or the value of the one column.

    Raises:
        RecipeError: if a label is one of the columns.
        DataError: as ``rows_of``, or if a column of the examples has no name.
    """
    check_label_apart(columns, labels)
    columns = columns or _other_columns(file, labels)
    names, raw, given = list[str](), list[Any](), list[Any]()
    for name, values in rows_of(file, (*columns, *labels), nullable=columns):
        names.append(Path(name).name)
        raw.append(dict(zip(columns, values, strict=False)))
        given.append(values[len(columns) :] if several else values[-1])
    return Table(names, raw, given)


def _other_columns(file: Path, labels: Sequence[str]) -> list[str]:
    names = columns_of(file)
    if "" in names:
        raise DataError(
            f"Column {names.index('') + 1} of {file} has no name, as the row numbers of pandas have none.",
            allowed="a name for each column in the first line",
            next_step="leave it out (to_csv(index=False)), or name the columns to read in data.columns",
        )
    return [name for name in names if name not in labels]


def columns_source(
    tables: Mapping[str, Table],
    place: Path,
    excluded: Collection[str] = (),
    *,
    targets: Sequence[str] = (),
    categories: Collection[str] | None = None,
    missing: Literal["refuse", "fill"] = "refuse",
) -> Source:
    """Return a source of rows, of classes or of numbers.

    Args:
        tables: by split, train and where there are such splits val and test; raw rows are mappings without labels.
        place: of the data, for messages.
        excluded: names of rows to leave out.
        targets: names of the numbers that the labels are, for a regression; none: labels are classes.
        categories: columns of categories; None: those in which a training row has something else than a number.
        missing: default of ``modality.missing``.

    Raises:
        RecipeError: if a row to leave out is not there.
        DataError: if there is no row, or a label cannot be used.
    """
    check_training_rows(tables, place)
    train, gone = tables["train"], left_out(tables, excluded, place)
    kept = [row for at, row in enumerate(train.raw) if at not in gone.get("train", ())]
    if targets:
        outputs = tuple(targets)
        given = {split: _numbers(table, targets, gone.get(split, ())) for split, table in tables.items()}
    else:
        outputs, given = _classes(tables, place, gone)
    return rows_source(
        tables,
        given,
        gone,
        outputs=outputs,
        modality=_modality(kept or train.raw, categories, missing),
        columns=tuple(train.raw[0]),
        task="regression" if targets else "classification",
        fit=TableModality.fitted,
    )


def _classes(
    tables: Mapping[str, Table], place: Path, gone: Mapping[str, Collection[int]]
) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Return classes as ``row_classes`` does; where labels are numbers, an error says how to estimate them."""
    try:
        return row_classes(tables, place, gone)
    except DataError as error:
        if any(_number(label) is None for label in tables["train"].labels):
            raise
        step = f"{error.next_step}; to estimate the numbers: data.name=table_numbers, task=regression"
        raise DataError(error.problem, allowed=error.allowed, next_step=step) from error


def _modality(
    rows: Sequence[Mapping[str, Any]], categories: Collection[str] | None, missing: Literal["refuse", "fill"]
) -> TableModality:
    """Which columns are numbers, with their figures, and the categories of the others, over the training file."""
    numbers, named, values = list[str](), list[str](), list[tuple[str, ...]]()
    for column in rows[0]:
        given = [row[column] for row in rows if not TableModality.is_missing(row[column])]
        if (categories is None or column not in categories) and None not in map(_number, given):
            numbers.append(column)
            continue
        if categories is None:
            _warn_if_mostly_numbers(column, given)
        named.append(column)
        values.append(tuple(sorted({str(value).strip() for value in given})))
    none, one = (0.0,) * len(numbers), (1.0,) * len(numbers)
    table = TableModality(tuple(numbers), none, one, tuple(named), tuple(values), missing)
    examples = np.array([[_number(row[name]) for name in numbers] for row in rows], np.float64)
    return table.fitted(np.where(np.isinf(examples), np.nan, examples))  # infinite ones are refused with their row


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
    except OverflowError:  # an integer beyond float64
        return math.inf


def _warn_if_mostly_numbers(column: str, values: Sequence[Any]) -> None:
    """Say where a few words, such as marks of missing values, make categories of a column of numbers."""
    words = [value for value in values if _number(value) is None]
    if 2 * len(words) < len(values):
        warnings.warn(
            f"The column '{column}' is read as categories: {len(values) - len(words):,} of its {len(values):,} values "
            f"are numbers, and {str(words[0])[:50]!r} is none. If it means a missing value, leave that empty; a number "
            "has a point and no units.",
            stacklevel=2,
        )


def _numbers(table: Table, targets: Sequence[str], without: Collection[int]) -> Array:
    """Targets float32 [N, D] of labels that are tuples of D; 0 where a row that is left out has no number."""
    result = np.empty((len(table.labels), len(targets)), np.float32)
    for at, given in enumerate(table.labels):
        for column, (name, value) in enumerate(zip(targets, given, strict=True)):
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not math.isfinite(number) and at not in without:
                raise DataError(
                    f"The row {table.names[at]} has {str(value)[:50]!r} as its '{name}'.",
                    allowed="a finite number",
                    next_step="correct it, or leave the row out (data.exclude)",
                )
            result[at, column] = number if math.isfinite(number) else 0
    return result
