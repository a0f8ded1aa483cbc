"""Adult: the age of a person in the US census of 1994 in years, regression, from the other columns and the income.

The files of the data set 'adult'.
"""

from __future__ import annotations

from dataclasses import replace

from sdcompress.data.source import Source
from sdcompress.data.sources._adult import CATEGORIES, adult_tables
from sdcompress.data.sources._columns import columns_source
from sdcompress.schema import recipe

__all__ = ["adult_age"]


def adult_age(spec: recipe.Data) -> Source:
    """Return the rows, one number each.

    Raises:
        DataError: if a file is missing or broken.
    """
    tables, root = adult_tables(spec, "age")
    numbers = {split: replace(table, labels=[(label,) for label in table.labels]) for split, table in tables.items()}
    categories = {*CATEGORIES, "income"}
    return columns_source(numbers, root, spec.exclude, targets=("age",), categories=categories, missing="fill")
