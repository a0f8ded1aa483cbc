"""Texts in a local Hugging Face dataset: which columns they are, and their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdcompress.data.source import Source
from sdcompress.data.sources._tables import Table, check_label_apart, texts_source
from sdcompress.errors import DataError, nearest
from sdcompress.schema import recipe

__all__ = ["common_classes", "dataset_texts", "has_texts"]

_NAMES = ("text", "sentence")


def has_texts(features: Mapping[str, Any], label: str) -> bool:
    """Whether any column beside that of the labels holds texts."""
    return bool(_text_columns(features, label))


def dataset_texts(root: Path, tables: Mapping[str, Any], spec: recipe.Data) -> Source:
    """Return the texts of a dataset: ``data.columns``, else its only column of texts, or the one called ``text``.

    Args:
        root: of the dataset, for messages.
        tables: ``datasets.Dataset`` of each split, by train, val and test.
        spec: names the columns.

    Raises:
        RecipeError: if the label is one of the columns.
        DataError: if the columns are not there or ambiguous, a row lacks a text or a label, or splits have different
            classes.
    """
    check_label_apart(spec.columns, (spec.label,))
    columns = spec.columns or _only(root, tables["train"].features, spec.label)
    read = {split: _table(root, split, table, columns, spec.label) for split, table in tables.items()}
    classes = common_classes(root, [table.features[spec.label] for table in tables.values()])
    return texts_source(read, columns, root, spec.exclude, classes=classes or None)


def common_classes(root: Path, features: Iterable[Any]) -> tuple[str, ...]:
    """Return the names of the classes of label columns; empty: they are no ClassLabels.

    Args:
        root: of the dataset, for messages.
        features: of the label column of each split.

    Raises:
        DataError: if splits have different classes.
    """
    named = {tuple(getattr(feature, "names", None) or ()) for feature in features}
    if len(named) > 1:
        raise DataError(
            f"The splits of {root} have different classes.",
            allowed="the same class names in the same order in every split",
            next_step="cast the label columns to one ClassLabel, and save the dataset again",
        )
    return named.pop()


def _text_columns(features: Mapping[str, Any], label: str) -> list[str]:
    kinds = {name: getattr(feature, "dtype", "") for name, feature in features.items() if name != label}
    return [name for name, kind in kinds.items() if kind in {"string", "large_string"}]


def _only(root: Path, features: Mapping[str, Any], label: str) -> tuple[str, ...]:
    texts = _text_columns(features, label)
    usual = [name for name in texts if name in _NAMES]
    if len(texts) == 1 or len(usual) == 1:
        return (texts[0] if len(texts) == 1 else usual[0],)
    raise DataError(
        f"{root} has more than one column of texts: {', '.join(texts)}.",
        allowed="one column, or two for pairs of texts",
        next_step=f"--set 'data.columns=[{texts[0]}]', or [{texts[0]}, {texts[1]}] for pairs",
    )


def _table(root: Path, split: str, table: Any, columns: Sequence[str], label: str) -> Table:
    rows = table.with_format(None)
    for column in (*columns, label):
        if column not in table.features:
            guess = nearest(column, table.features)
            raise DataError(
                f"The split '{split}' of {root} has no column '{column}'."
                + (f" Did you mean '{guess}'?" if guess else ""),
                allowed=f"its columns: {', '.join(table.features)}",
                next_step="set data.columns and data.label",
            )
    texts, labels = [list(rows[column]) for column in columns], list(rows[label])
    names = [f"{split}/{row}" for row in range(len(labels))]
    for name, *values in zip(names, *texts, labels, strict=True):
        if None in values:
            raise DataError(
                f"The row {name} of {root} lacks a text or its label.",
                allowed="a text and a label in each row",
                next_step="remove such rows with Dataset.filter, and save the dataset again",
            )
    raw = texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))
    classes = getattr(table.features[label], "names", None)
    return Table(names, raw, _names_of(labels, classes, names, root) if classes else labels)


def _names_of(labels: Sequence[int], classes: Sequence[str], names: Sequence[str], root: Path) -> list[str]:
    """Return the class's name of each ClassLabel: a number as a text could be taken for a name such as '1'."""
    for name, label in zip(names, labels, strict=True):
        if not 0 <= label < len(classes):
            raise DataError(
                f"The row {name} of {root} has the label {label}.",
                allowed=f"0 to {len(classes) - 1}: there are {len(classes)} classes",
                next_step="if a split has no labels (-1), remove it or make another one with train_test_split",
            )
    return [classes[label] for label in labels]
