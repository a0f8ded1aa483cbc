"""SST-2: phrases and sentences of film reviews, negative or positive (Socher et al. 2013), as GLUE has them.

    data.dir/train.tsv                 67,349 phrases
    data.dir/dev.tsv                   872 sentences: the validation split
    data.dir/test.tsv                  1,821 sentences: the test split

The test sentences of GLUE itself have no labels; then the validation sentences are the test split, and
``data.validation`` of the phrases are held out. Phrases and sentences are two distributions.
"""

from __future__ import annotations

from sdcompress.data.source import Source, data_folder
from sdcompress.data.sources._tables import read_table, texts_source
from sdcompress.errors import DataError
from sdcompress.modalities._rows import columns_of
from sdcompress.schema import recipe

__all__ = ["sst2"]

_COLUMNS, _LABEL, _CLASSES = ("sentence",), "label", ("negative", "positive")
_FROM = "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip"


def sst2(spec: recipe.Data) -> Source:
    """Return phrases to train on, and sentences.

    Raises:
        DataError: if a file is missing or broken.
    """
    root = data_folder(spec)
    root = root if (root / "train.tsv").is_file() else root / "SST-2"
    if missing := [name for name in ("train.tsv", "dev.tsv") if not (root / name).is_file()]:
        raise DataError(
            f"'sst2' is not in {data_folder(spec).resolve()}: there is no {' and no '.join(missing)}.",
            allowed="train.tsv, dev.tsv and test.tsv, there or in a folder 'SST-2'",
            next_step=f"unpack {_FROM} there, or set data.dir",
        )
    tables = {"train": read_table(root / "train.tsv", _COLUMNS, _LABEL)}
    dev, test = read_table(root / "dev.tsv", _COLUMNS, _LABEL), root / "test.tsv"
    if test.is_file() and _LABEL in columns_of(test):
        tables |= {"val": dev, "test": read_table(test, _COLUMNS, _LABEL)}
    else:
        tables |= {"test": dev}
    return texts_source(tables, _COLUMNS, root, spec.exclude, classes=_CLASSES)
