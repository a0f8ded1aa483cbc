"""User texts in files: .tsv, .csv or .jsonl with named columns, one for each split.

    data.dir/train.tsv                 validation.tsv (or val, valid, dev) and test.tsv if there are such splits
    data.columns: [sentence]           the column of the text; two for pairs: [question, answer]
    data.label: label                  the column of the label: a class's name, or its number from 0

A folder with one table alone is split. The names of the classes are those of the training rows. A .csv file is quoted
as RFC 4180 says, a .tsv file has no quotes. ``modality.tokenizer`` names the encoder's tokenizer.json.
"""

from __future__ import annotations

from pathlib import Path

from sdcompress.data.source import Source
from sdcompress.data.sources._tables import read_table, table_files, texts_source
from sdcompress.errors import RecipeError
from sdcompress.schema import recipe

__all__ = ["texts"]

_COLUMNS = ("text",)


def texts(spec: recipe.Data) -> Source:
    """Return the texts below ``data.dir``.

    Raises:
        RecipeError: if ``data.dir`` is not set, there are more than two columns, or the label is one of them.
        DataError: if a file is missing or broken, lacks a column, or a label is not of the training classes.
    """
    if spec.dir is None:
        raise RecipeError("'texts' needs data.dir.", next_step="--set data.dir=FOLDER (with train.tsv, test.tsv)")
    root, columns = Path(spec.dir), spec.columns or _COLUMNS
    tables = {split: read_table(file, columns, spec.label) for split, file in table_files(root).items()}
    return texts_source(tables, columns, root, spec.exclude)
