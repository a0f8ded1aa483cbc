"""Rows of tables, such as texts with labels: raw examples in memory, of which the modality makes the examples."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from sdcompress.data.samples import Indices, without_setting
from sdcompress.errors import DataError, InputError
from sdcompress.modalities import Modality
from sdcompress.tasks import Array

__all__ = ["PreparedRows", "RawRows", "class_indices", "class_names", "rows_digest"]


class RawRows:
    """Raw examples with their targets, before the modality is known.

    Args:
        names: of the rows, in messages and in ``data.exclude``.
        raw: N raw examples.
        targets: int64 [N].
        left_out: positions that ``data.exclude`` names; they are never looked at.
    """

    in_memory = True

    def __init__(
        self, names: Sequence[str], raw: Sequence[Any], targets: Array, left_out: Collection[int] = ()
    ) -> None:
        self.names, self.raw, self.targets, self._left_out = names, raw, targets, left_out

    def __len__(self) -> int:
        return len(self.raw)

    def examples(self, indices: Indices) -> Array:
        """Not to be had before the modality is known."""
        raise TypeError(f"the examples of {len(indices)} raw rows were asked for before prepared_by")

    def prepared_by(self, modality: Modality) -> PreparedRows:
        """Return the rows with their examples, all made at once.

        Raises:
            DataError: if a row cannot be used; names the first, and how to leave it out.
        """
        kept = [position for position in range(len(self)) if position not in self._left_out]
        for position in kept:
            self._check(modality.check_raw, position)
        raw = list(self.raw)
        for position in self._left_out:
            raw[position] = raw[kept[0]] if kept else None  # nobody asks for it
        try:
            return PreparedRows(self, modality.examples(raw) if kept else None)
        except InputError as error:
            for position in kept:  # one at a time, to name the row
                self._check(modality.example, position)
            raise DataError(
                f"The rows cannot be used: {error.problem}", allowed=error.allowed, next_step=error.next_step
            ) from error

    def _check(self, use: Callable[[Any], object], position: int) -> None:
        try:
            use(self.raw[position])
        except InputError as error:
            name = self.names[position]
            raise DataError(
                f"The row {name} cannot be used: {error.problem}",
                allowed=error.allowed,
                next_step=f"correct it, or go on without it: {without_setting([name])}",
            ) from error


class PreparedRows:
    """Rows with their examples in memory; see ``Samples``.

    Args:
        rows: that they were made of.
        examples: of all rows, as ``Modality.examples`` gives them.
    """

    in_memory = True

    def __init__(self, rows: RawRows, examples: Any) -> None:
        self._rows, self._examples = rows, examples

    @property
    def targets(self) -> Array:
        """Return all targets, int64 [N]."""
        return self._rows.targets

    def __len__(self) -> int:
        return len(self._rows)

    def examples(self, indices: Indices) -> Array:
        """Return the examples at these positions, [b, ...]."""
        chosen: Array = self._examples[indices]
        return chosen

    def originals(self, indices: Indices) -> list[Any]:
        """Return the raw examples at these positions."""
        return [self._rows.raw[int(index)] for index in indices]


def class_names(labels: Sequence[Any], names: Sequence[str], place: str) -> tuple[str, ...]:
    """Return the names of classes that the labels of a training split stand for.

    Whole numbers are the positions of K classes, which are called by them; anything else is a name, and the classes are
    the names in alphabetical order. A warning reports labels of both kinds.

    Args:
        labels: N of them, str or int, as files hold them.
        names: of the N rows, for messages.
        place: of the labels, for messages.

    Raises:
        DataError: if a label is empty, or numbers are not whole, leave gaps, or start at another number than 0.
    """
    row_of = {str(label).strip(): name for label, name in zip(reversed(labels), reversed(names), strict=True)}
    numbers = {text: number for text in row_of if (number := _number(text)) is not None}
    if len(numbers) < len(row_of):
        if "" in row_of:
            raise DataError(
                f"The row {row_of['']} has an empty label.",
                allowed="a name or a number in each row",
                next_step="label the row, or leave it out (data.exclude)",
            )
        _warn_of_both_kinds(row_of, numbers)
        return tuple(sorted(row_of))
    for text, number in numbers.items():
        if not number.is_integer() or number < 0:
            raise DataError(
                f"The row {row_of[text]} has the label {text[:50]!r}.",
                allowed="whole numbers from 0, or names of classes",
                next_step="number the classes from 0, or write their names",
            )
    indices = set(numbers.values())
    if indices != set(range(len(indices))):
        gap = next(number for number in range(len(indices) + 1) if number not in indices)
        raise DataError(
            f"No row of {place} has the label {gap}, and one has {max(indices):g}.",
            allowed=f"every label from 0 to {max(indices):g}",
            next_step="number the classes from 0 without gaps, or write their names",
        )
    return tuple(str(index) for index in range(len(indices)))


def class_indices(
    labels: Sequence[Any], classes: Sequence[str], names: Sequence[str], left_out: Collection[int] = ()
) -> Array:
    """Return the index of each label's class, int64 [N].

    Args:
        labels: N of them, names of classes or, where no name is a number itself, their numbers.
        classes: K names.
        names: of the N rows, for messages.
        left_out: positions whose label may be anything; where it is no class the first one stands for it.

    Raises:
        DataError: if another label is none of them.
    """
    known = {name.strip(): k for k, name in enumerate(classes)}
    numbered = all(_number(name) is None for name in known)
    if numbered:
        known |= {str(k): k for k in range(len(classes))}
    indices = np.empty(len(labels), np.int64)
    for at, label in enumerate(labels):
        text = str(label).strip()
        number = None if text in known else _number(text)
        index = known.get(text if number is None or not number.is_integer() else str(int(number)))
        if index is None and at not in left_out:
            raise DataError(
                f"The row {names[at]} has the label {str(label)[:50]!r}.",
                allowed=f"{', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}"
                + (f", or 0 to {len(classes) - 1}" if numbered else ""),
                next_step="correct the label, or leave the row out (data.exclude)",
            )
        indices[at] = index or 0
    return indices


def rows_digest(splits: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> tuple[str, str]:
    """SHA-256 over the raw examples of splits, and over the names of their rows.

    Args:
        splits: names and raw examples (str, tuples of str, or mappings to values) of each.
    """
    content, named = hashlib.sha256(), hashlib.sha256()
    for names, raw in splits:
        for name, one in zip(names, raw, strict=True):
            named.update(name.encode(errors="surrogatepass") + b"\n")
            values = one if isinstance(one, tuple) else one.values() if isinstance(one, Mapping) else (one,)
            # files of JSON hold numbers and null too
            content.update(b"\0".join(str(value).encode(errors="surrogatepass") for value in values) + b"\n")
        content.update(b"\0\0")
        named.update(b"\0\0")
    return content.hexdigest(), named.hexdigest()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _warn_of_both_kinds(row_of: Mapping[str, str], numbers: Mapping[str, float]) -> None:
    word = next(text for text in row_of if text not in numbers)
    if numbers:
        warnings.warn(
            f"Some labels are numbers, and the row {row_of[word]} has the label {word[:50]!r}: all {len(row_of)} are "
            "read as names of classes.",
            stacklevel=3,
        )
