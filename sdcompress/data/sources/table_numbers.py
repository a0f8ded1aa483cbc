"""User tables with numbers to estimate, regression: as the data set 'table', with one or several numbers for a label.

data.label: "height, weight"       the columns of the numbers
"""

from __future__ import annotations

from pathlib import Path

from sdcompress.data.source import Source
from sdcompress.data.sources._columns import columns_source, read_rows
from sdcompress.data.sources._tables import table_files
from sdcompress.errors import RecipeError
from sdcompress.schema import recipe

__all__ = ["table_numbers"]


def table_numbers(spec: recipe.Data) -> Source:
    """Return the rows below ``data.dir``.

    Raises:
        RecipeError: if ``data.dir`` is not set, ``data.exclude`` names a row that is not there, or a column is a label.
        DataError: if a file is missing or broken, lacks a column, or a label is no finite number.
    """
    if spec.dir is None:
        raise RecipeError("'table_numbers' needs data.dir.", next_step="--set data.dir=FOLDER (with train.csv)")
    root, targets = Path(spec.dir), tuple(name.strip() for name in spec.label.split(","))
    tables = {split: read_rows(file, spec.columns, targets, several=True) for split, file in table_files(root).items()}
    return columns_source(tables, root, spec.exclude, targets=targets)
