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
from sdcompress.data.sources._listing import Skipped, files_below
from sdcompress.data.sources._photos import has_splits, published_splits
from sdcompress.data.sources._tables import read_table, texts_source
from sdcompress.errors import DataError, RecipeError
from sdcompress.modalities._rows import SUFFIXES
from sdcompress.schema import recipe

__all__ = ["texts"]

_TABLES = SUFFIXES - {".txt"}  # which has no labels
_COLUMNS = ("text",)


def texts(spec: recipe.Data) -> Source:
    """Return the texts below ``data.dir``.

    Raises:
        RecipeError: if ``data.dir`` is not set, or there are more than two columns.
        DataError: if a file is missing or broken, lacks a column, or a label is not of the training classes.
    """
    if spec.dir is None:
        raise RecipeError("'texts' needs data.dir.", next_step="--set data.dir=FOLDER (with train.tsv, test.tsv)")
    root, columns = Path(spec.dir), spec.columns or _COLUMNS
    tables = {split: read_table(file, columns, spec.label) for split, file in _files(root).items()}
    return texts_source(tables, columns, root, spec.exclude)


def _files(root: Path) -> dict[str, Path]:
    """Return the file of each split."""
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
