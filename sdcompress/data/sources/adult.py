"""Adult: is the income of a person in the US census of 1994 above 50,000 dollars (Kohavi, KDD 1996; UCI).

    data.dir/adult.data                32,561 rows, of which data.validation are held out; also adult.data.xz
    data.dir/adult.test                16,281 rows

Five numeric and eight categorical columns; the weight of a row (fnlwgt) is left out. ``?`` is a missing value, which is
filled.
"""

from __future__ import annotations

from sdcompress.data.source import Source
from sdcompress.data.sources._adult import CATEGORIES, adult_tables
from sdcompress.data.sources._columns import columns_source
from sdcompress.schema import recipe

__all__ = ["adult"]


def adult(spec: recipe.Data) -> Source:
    """Return the rows, classes <=50K and >50K.

    Raises:
        DataError: if a file is missing or broken.
    """
    tables, root = adult_tables(spec, "income")
    return columns_source(tables, root, spec.exclude, categories=CATEGORIES, missing="fill")
