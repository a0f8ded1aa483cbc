"""User tables with classes: .csv, .tsv or .jsonl with named columns, one file for each split.

    data.dir/train.csv                 validation.csv (or val, valid, dev) and test.csv if there are such splits
    data.label: label                  the column of the class: its name, or its number from 0
    data.columns: [age, city]          the columns of the examples; default: all others

A folder with one table alone is split. A column is numeric if every training row has a number in it or nothing; else it
is categorical, and its categories are those of the training file. Rows with missing values are refused unless
``modality.missing`` is ``fill``.
"""

from __future__ import annotations

from pathlib import Path

from sdcompress.data.source import Source
from sdcompress.data.sources._columns import columns_source, read_rows
from sdcompress.data.sources._tables import table_files
from sdcompress.errors import RecipeError
from sdcompress.schema import recipe

__all__ = ["table"]


def table(spec: recipe.Data) -> Source:
    """Return the rows below ``data.dir``.

    Raises:
        RecipeError: if ``data.dir`` is not set, ``data.exclude`` names a row that is not there, or a column is a label.
        DataError: if a file is missing or broken, lacks a column, or a label is not of the training classes.
    """
    if spec.dir is None:
        raise RecipeError("'table' needs data.dir.", next_step="--set data.dir=FOLDER (with train.csv, test.csv)")
    root = Path(spec.dir)
    tables = {
        split: read_rows(file, spec.columns, (spec.label,), several=False) for split, file in table_files(root).items()
    }
    return columns_source(tables, root, spec.exclude)
