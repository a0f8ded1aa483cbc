"""The files of Adult, as UCI publishes them: plain, or compressed with xz."""

from __future__ import annotations

import csv
import lzma
from pathlib import Path
from typing import Any

from sdcompress.data.source import data_folder
from sdcompress.data.sources._tables import Table
from sdcompress.errors import DataError
from sdcompress.schema import recipe

__all__ = ["CATEGORIES", "adult_tables"]

_COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
)
CATEGORIES = frozenset(
    {"workclass", "education", "marital-status", "occupation", "relationship", "race", "sex", "native-country"}
)
_UNUSED = "fnlwgt"  # how many people of the census a row stands for, no property of the person
_FROM = "https://archive.ics.uci.edu/dataset/2/adult"


def adult_tables(spec: recipe.Data, label: str) -> tuple[dict[str, Table], Path]:
    """Return the splits train and test, with one column as the label, and the folder where they lie.

    Raises:
        DataError: if a file is missing or broken.
    """
    folder = data_folder(spec)
    root = folder if _file(folder, "adult.data") else folder / "adult"
    tables = {}
    for split, name in (("train", "adult.data"), ("test", "adult.test")):
        file = _file(root, name)
        if file is None:
            raise DataError(
                f"The data set Adult is not in {folder.resolve()}: there is no {name} and no {name}.xz.",
                allowed="adult.data and adult.test, there or in a folder 'adult', also compressed with xz",
                next_step=f"download them from {_FROM}, or set data.dir",
            )
        tables[split] = _table(file, label)
    return tables, root


def _file(root: Path, name: str) -> Path | None:
    return next((file for file in (root / name, root / f"{name}.xz") if file.is_file()), None)


def _table(file: Path, label: str) -> Table:
    names, raw, labels = list[str](), list[Any](), list[Any]()
    try:
        text = lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()
        lines = csv.reader(text.decode("ascii").splitlines(), skipinitialspace=True)
        for values in lines:
            if not values or values[0].startswith("|"):  # the test file begins with a comment
                continue
            row = dict(zip(_COLUMNS, values, strict=True))
            row["income"] = row["income"].rstrip(".")  # the test file's labels end in a dot
            names.append(f"{file.name}:{lines.line_num}")
            labels.append(row.pop(label))
            raw.append({name: "" if value == "?" else value for name, value in row.items() if name != _UNUSED})
    except (OSError, ValueError, lzma.LZMAError, csv.Error) as error:
        raise DataError(
            f"{file} cannot be read: {error}.",
            allowed=f"lines of {len(_COLUMNS)} values with commas, as published",
            next_step=f"download it again from {_FROM}",
        ) from error
    return Table(names, raw, labels)
