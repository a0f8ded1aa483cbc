"""Rows of tables in files: .csv, .tsv, .jsonl by names of columns, .txt with one value a line."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdcompress.errors import DataError, nearest

__all__ = ["SUFFIXES", "columns_of", "rows_of"]

SUFFIXES = frozenset({".csv", ".jsonl", ".tsv", ".txt"})
_DIALECTS: dict[str, dict[str, Any]] = {".csv": {}, ".tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE}}
_LONGEST = 2**30  # characters of a value
_Row = tuple[int, Mapping[str, Any]]  # line number, from 1


def rows_of(
    file: Path, columns: Sequence[str], *, nullable: Collection[str] = ()
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the rows of a file: a name for messages, such as 'reviews.csv:3', and the values of some columns.

    A .csv file is quoted as RFC 4180 says, a .tsv file has tabs and no quotes; both begin with names of columns.
    A .jsonl file holds one object a line. Empty lines in these are no rows. A .txt file has no columns: each line is
    the value of the one column.

    Args:
        file: UTF-8, with or without a byte order mark.
        columns: which values, in this order.
        nullable: columns in which a .jsonl file may have null, which is None.

    Raises:
        DataError: if the file cannot be read, lacks a column or has it twice, or a row lacks a value.
    """
    kind = file.suffix.lower()
    if kind not in SUFFIXES:
        raise DataError(
            f"{file} is no table that can be read: it ends in '{file.suffix}'.",
            allowed=", ".join(sorted(SUFFIXES)),
            next_step="save it as one of these",
        )
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for number, row in _READERS[kind](file, lines, columns):
                yield f"{file}:{number}", tuple(_value(file, number, row, column, nullable) for column in columns)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(file, error) from error


def columns_of(file: Path) -> tuple[str, ...]:
    """Return the names of the columns of a file, which is no .txt.

    Raises:
        DataError: if the file cannot be read, or has none.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".jsonl":
                first = json.loads(next(filter(str.strip, lines), ""))
                names = tuple(map(str, first)) if isinstance(first, dict) else ()
            else:
                names = tuple(next(csv.reader(lines, strict=True, **_DIALECTS[file.suffix.lower()]), ()))
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise _unreadable(file, error) from error
    if not names:
        raise DataError(
            f"{file} names no columns.",
            allowed="names of columns in the first line, or objects in a .jsonl file",
            next_step="write the names of the columns into the first line",
        )
    return names


def _unreadable(file: Path, error: Exception) -> DataError:
    if isinstance(error, csv.Error):
        return DataError(
            f"{file} cannot be read as a table: {error}.",
            allowed="values with commas, quotes or line breaks in quotes, and each quote closed",
            next_step="close the quotes; write a quote within a value twice",
        )
    return DataError(f"{file} cannot be read: {error}.", allowed="a table in UTF-8", next_step="save it again in UTF-8")


def _delimited(file: Path, lines: Iterable[str], columns: Sequence[str]) -> Iterator[_Row]:
    # Python's own limit is 131,072, which a long document exceeds; there is one for all readers, and it is only raised
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
    reader = csv.DictReader(lines, strict=True, **_DIALECTS[file.suffix.lower()])
    _check_columns(file, reader.fieldnames or (), columns)
    for row in reader:
        if None in row:  # more values than columns
            raise _ragged(file, reader.line_num, f"{len(row) - 1 + len(row[None])} values")
        # a short line lacks its last values, which are not null
        yield reader.line_num, {name: value for name, value in row.items() if value is not None}


def _jsonl(file: Path, lines: Iterable[str], columns: Sequence[str]) -> Iterator[_Row]:
    checked = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _ragged(file, number, f"no JSON: {error}") from error
        if not isinstance(row, dict):
            raise _ragged(file, number, f"a {type(row).__name__}, no object")
        if not checked:
            _check_columns(file, row, columns)
            checked = True
        yield number, row


def _txt(file: Path, lines: Iterable[str], columns: Sequence[str]) -> Iterator[_Row]:
    if len(columns) != 1:
        raise DataError(
            f"{file} has one text a line, and {len(columns)} columns are needed: {', '.join(columns)}.",
            allowed=".csv, .tsv or .jsonl with these columns",
            next_step="save it as one of these",
        )
    for number, line in enumerate(lines, start=1):
        yield number, {columns[0]: line.rstrip("\r\n")}


_READERS = {".csv": _delimited, ".tsv": _delimited, ".jsonl": _jsonl, ".txt": _txt}


def _check_columns(file: Path, there: Iterable[str], wanted: Sequence[str]) -> None:
    there = list(there)
    if missing := [column for column in wanted if column not in there]:
        if len(there) == 1 and (mark := next((mark for mark in ";,\t|" if mark in str(there[0])), "")):
            raise _separated_otherwise(file, mark)
        guess = nearest(missing[0], there)
        raise DataError(
            f"{file} has no column '{missing[0]}'." + (f" Did you mean '{guess}'?" if guess else ""),
            allowed=f"its columns: {', '.join(map(str, there)) or 'none'}",
            next_step="name the columns in the recipe (data.columns, data.label), or in the first line of the file",
        )
    if repeated := [column for column in wanted if there.count(column) > 1]:
        raise DataError(
            f"{file} has two columns '{repeated[0]}'.",
            allowed="columns of different names",
            next_step="rename one of them in the first line of the file",
        )


def _separated_otherwise(file: Path, mark: str) -> DataError:
    return DataError(
        f"The first line of {file} names one column, with {mark!r} in it.",
        allowed="commas between the values of a .csv file, tabs between those of a .tsv file",
        next_step="save it with these, or with the ending that it needs",
    )


def _value(file: Path, number: int, row: Mapping[str, Any], column: str, nullable: Collection[str]) -> Any:
    value = row.get(column)
    if value is None and not (column in nullable and column in row):
        raise _ragged(file, number, f"no value of '{column}'")
    return value


def _ragged(file: Path, number: int, what: str) -> DataError:
    return DataError(
        f"Line {number} of {file} holds {what}.",
        allowed="one value for each column",
        next_step="correct the line; in a .csv file values with commas, quotes or line breaks stand in quotes",
    )
