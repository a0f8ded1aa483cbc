"""Rows of tables: standardised numbers, and categories by their index; unknown categories and missing values too."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sdcompress.errors import DataError, InputError, nearest
from sdcompress.modalities._base import Modality
from sdcompress.modalities._form import Form, FormField
from sdcompress.modalities._inputs import Array, Inputs
from sdcompress.modalities._rows import SUFFIXES, rows_of
from sdcompress.schema.graphs import Tensor

__all__ = ["Table"]

_Positive = Annotated[float, Field(gt=0)]
_UNKNOWN, _MISSING, _FIRST = 0, 1, 2  # indices of a column's categories; known ones from 2
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_LARGEST = 2**24  # rows of an embedding
_CARD_CODE = '''import json

NUMBERS = {numbers}  # column, mean, standard deviation
CATEGORIES = {categories}  # column, first index, index of each known category


def missing(value):
    return value is None or value != value or str(value).strip() == ""


def inputs_of(path):
    """The row of a .json file that holds one object, column -> value."""
    with open(path, encoding="utf-8") as file:
        row = json.load(file)
    numbers = [(float("nan" if missing(row[name]) else row[name]) - mean) / std for name, mean, std in NUMBERS]
    categories = [
        first + (1 if missing(row[name]) else known.get(str(row[name]).strip(), 0)) for name, first, known in CATEGORIES
    ]
    numbers = np.nan_to_num(np.array([numbers], np.float32))  # 0 is the mean
    inputs = {{"numbers": numbers, "categories": np.array([categories], np.int64)}}
    return {{name: array for name, array in inputs.items() if array.size}}
'''


@dataclass(frozen=True)
class Table(Modality):
    """Rows of n numeric and m categorical columns. A raw example is a mapping, column -> value, or a .json file of it.

    An example is float64 [n + m]: the numbers as they are, NaN where one is missing, and an index for each category.
    A value is missing where it is None, NaN or an empty text.

    The inputs are ``numbers``, float32 [B, n], standardised, 0 where one is missing; and ``categories``, int64 [B, m],
    of which every column has its own range of indices: unknown, missing, and the categories of the training rows. So
    one embedding of ``Tensor.below`` rows serves all columns. Columns of one kind alone give one input.

    Attributes:
        numbers: names of the numeric columns.
        mean: of each, over the rows that train.
        std: their standard deviations.
        categories: names of the categorical columns.
        values: the known categories of each, over all rows of the training file.
        missing: ``refuse`` rows with missing values, or ``fill`` in the mean of a number and the index "missing".
    """

    numbers: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[_Positive, ...] = ()
    categories: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    missing: Literal["refuse", "fill"] = "refuse"

    suffixes: ClassVar[frozenset[str]] = frozenset({".json", *SUFFIXES}) - {".txt"}

    def __post_init__(self) -> None:
        """Refuse columns without their figures, two of one name, and no column."""
        columns = (*self.numbers, *self.categories)
        if not columns or len(set(columns)) < len(columns):
            raise ValueError("there is no column, or two have one name")
        if not len(self.numbers) == len(self.mean) == len(self.std) or len(self.categories) != len(self.values):
            raise ValueError("each numeric column needs a mean and a std, each categorical one its values")
        if self._ends[-1] > _LARGEST:
            raise ValueError(f"the columns have {self._ends[-1]} categories, and {_LARGEST} are possible")

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """What to do with missing values; the columns are the data set's."""
        return ("missing",)

    def fitted(self, examples: Array) -> Table:
        """Return the same columns with mean and standard deviation of the numbers; a missing one does not count.

        Args:
            examples: float64 [N, n + m], or the numbers alone.
        """
        means, deviations = list[float](), list[float]()
        for column in examples[:, : len(self.numbers)].T:
            given = column[~np.isnan(column)]
            means.append(float(given.mean()) if len(given) else 0.0)
            # 1 for a column that never changes; the deviation of equal numbers may round to something tiny
            changes = len(given) > 0 and given.min() < given.max()
            deviations.append((float(given.std()) if changes else 0.0) or 1.0)
        return replace(self, mean=tuple(means), std=tuple(deviations))

    @cached_property  # every call asks for them
    def tensors(self) -> tuple[Tensor, ...]:
        """``numbers`` and ``categories``, as far as there are such columns."""
        numbers = Tensor(name="numbers", dtype="float32", shape=("batch", len(self.numbers)))
        categories = Tensor(
            name="categories", dtype="int64", shape=("batch", len(self.categories)), below=self._ends[-1] or None
        )
        return tuple(tensor for tensor in (numbers, categories) if tensor.shape[1])

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, the numeric ones first."""
        return (*self.numbers, *self.categories)

    def prepare(self, raw: Any) -> Inputs:
        """See ``Modality``.

        Args:
            raw: a list of B rows, each a mapping with a value of each column, or the path of a .json file.
        """
        frame = hasattr(raw, "to_dict")  # of pandas, which would be read column by column
        if isinstance(raw, Mapping | str | Path) or frame:
            raise InputError(
                f"This is a {type(raw).__name__}, not a list of rows.",
                allowed="a list of mappings, column -> value",
                next_step="engine.preprocess(frame.to_dict('records'))"
                if frame
                else "put it into a list: engine.preprocess([row])",
            )
        return super().prepare(raw)

    def example(self, raw: Any) -> npt.NDArray[np.float64]:
        """A mapping with a value of each column, or the path of a .json file of one object; see ``Modality``."""
        row = self.decode(raw)
        if not isinstance(row, Mapping):
            raise InputError(
                f"A row is a {type(row).__name__}.",
                allowed="a mapping, column -> value, or a .json file with one object",
                next_step=f"give the columns {', '.join(self.columns)}",
            )
        if missing := [name for name in self.columns if name not in row]:
            guess = nearest(missing[0], list(map(str, row)))
            raise InputError(
                f"The row has no column '{missing[0]}'." + (f" Is it '{guess}'?" if guess else ""),
                allowed=", ".join(self.columns),
                next_step="give each column; a missing value is an empty text or null",
            )
        numbers = [self._number(at, row[name]) for at, name in enumerate(self.numbers)]
        indices = [self._index(at, row[name]) for at, name in enumerate(self.categories)]
        return np.array([*numbers, *indices], np.float64)

    def decode(self, raw: Any) -> Any:
        """The row of a .json file; anything else as it is."""
        if not isinstance(raw, str | Path):
            return raw
        try:
            return json.loads(Path(raw).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"The row cannot be read: {error}.",
                allowed="a .json file with one object, column -> value",
                next_step="save it again in UTF-8",
            ) from error

    def raw_from_bytes(self, content: bytes, *, most_bytes: int) -> Mapping[str, Any]:
        """A JSON object, column -> value; see ``Modality``."""
        del most_bytes  # a row in memory is about as large as what was sent
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(
                "The row is no JSON.", allowed="an object, column -> value", next_step="encode it again"
            ) from error
        if not isinstance(row, dict):  # a text would be taken for the name of a file
            raise InputError(
                f"The row is a JSON {type(row).__name__}.",
                allowed="an object, column -> value",
                next_step=f"give the columns {', '.join(self.columns)}",
            )
        return row

    @property
    def form(self) -> Form:
        """A field for each column."""
        optional = self.missing == "fill"
        numbers = [FormField(name, "number", optional=optional) for name in self.numbers]
        categories = [
            FormField(name, "choice", known, optional) for name, known in zip(self.categories, self.values, strict=True)
        ]
        return Form("object", (*numbers, *categories))

    def entered(self, example: npt.NDArray[np.float64]) -> tuple[str, ...]:
        """The values of the columns; an unknown category as ``?``."""
        count = len(self.numbers)
        numbers = ["" if math.isnan(value) else f"{value:.15g}" for value in example[:count].tolist()]
        indices = (int(index) - end for index, end in zip(example[count:], self._ends, strict=False))
        categories = [
            ("?", "")[index] if index < _FIRST else known[index - _FIRST]
            for index, known in zip(indices, self.values, strict=True)
        ]
        return (*numbers, *categories)

    def raw_examples(self, file: Path) -> Iterable[tuple[str, Any]]:
        """The row of a .json file, or all rows of a table; see ``Modality``."""
        if file.suffix.lower() not in SUFFIXES:
            yield str(file), file
            return
        for name, values in rows_of(file, self.columns, nullable=self.columns):
            yield name, dict(zip(self.columns, values, strict=True))

    def labelled_rows(self, file: Path, label: str) -> Iterable[tuple[str, Any, Any]]:
        """The rows of a table with their labels; see ``Modality``."""
        for name, (*values, given) in rows_of(file, (*self.columns, label), nullable=self.columns):
            yield name, dict(zip(self.columns, values, strict=True)), given

    def collate(self, examples: Any) -> Inputs:
        """Standardise float64 [B, n + m]."""
        rows, count = np.asarray(examples), len(self.numbers)
        if rows.shape[1:] != (len(self.columns),):
            raise DataError(
                f"The rows have the shape {list(rows.shape[1:])}.",
                allowed=f"{len(self.columns)} columns: {', '.join(self.columns)}",
                next_step="load the data set of the network",
            )
        standardised = (rows[:, :count] - np.array(self.mean)) / np.array(self.std)
        arrays = {
            "numbers": np.ascontiguousarray(np.nan_to_num(standardised, nan=0.0), np.float32),
            "categories": np.ascontiguousarray(rows[:, count:], np.int64),
        }
        return Inputs({tensor.name: arrays[tensor.name] for tensor in self.tensors})

    def check(self, inputs: Any) -> Inputs:
        """Return the inputs of a call; an index outside the categories is refused too."""
        checked = super().check(inputs)
        indices = checked.arrays.get("categories")
        if indices is not None and len(indices) and (indices.min() < 0 or indices.max() >= self._ends[-1]):
            raise InputError(
                f"The input 'categories' holds the index {indices.min() if indices.min() < 0 else indices.max()}.",
                allowed=f"0 to {self._ends[-1] - 1}",
                next_step="make the inputs with engine.preprocess",
            )
        return checked

    def edge_cases(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Means, unknown categories, numbers far from the mean; where they are filled in, missing values."""
        mean, std, starts = np.array(self.mean), np.array(self.std), np.array(self._ends[:-1], np.float64)
        cases = {
            "means": np.concatenate([mean, starts + _UNKNOWN]),
            "last categories": np.concatenate([mean, np.array(self._ends[1:], np.float64) - 1]),
            "far above": np.concatenate([mean + 100 * std, starts + _UNKNOWN]),
            "far below": np.concatenate([mean - 100 * std, starts + _UNKNOWN]),
        }
        if self.missing == "fill":
            cases["missing"] = np.concatenate([np.full(len(mean), np.nan), starts + _MISSING])
        return cases

    def card_text(self) -> str:
        """The columns, and how they are prepared."""
        parts = [f"numbers, standardised: {', '.join(self.numbers)}"] if self.numbers else []
        parts += [f"categories, by their index: {', '.join(self.categories)}"] if self.categories else []
        return "; ".join(parts) + f"; missing values: {self.missing}"

    def card_code(self) -> str:
        """See ``Modality``."""
        numbers = list(zip(self.numbers, self.mean, self.std, strict=True))
        categories = [(name, self._ends[at], self._known[at]) for at, name in enumerate(self.categories)]
        return _CARD_CODE.format(numbers=numbers, categories=categories)

    @staticmethod
    def is_missing(value: Any) -> bool:
        """Whether a value is None, NaN or an empty text."""
        empty = isinstance(value, str) and not value.strip()
        return value is None or empty or (isinstance(value, float | np.floating) and math.isnan(value))

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """Where the indices of each categorical column start, and where the last one's end."""
        return tuple(accumulate((len(known) + _FIRST for known in self.values), initial=0))

    @cached_property
    def _known(self) -> tuple[dict[str, int], ...]:
        return tuple({value: _FIRST + at for at, value in enumerate(known)} for known in self.values)

    def _number(self, at: int, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan if self.is_missing(value) else math.inf
        except OverflowError:  # an integer beyond float64
            number = math.inf
        if abs((number - self.mean[at]) / self.std[at]) <= _LARGEST_FLOAT:
            return number
        if math.isnan(number):
            return self._filled(self.numbers[at], math.nan)
        raise InputError(
            f"The column '{self.numbers[at]}' holds {str(value)[:50]!r}.",
            allowed="a finite number, also as float32 once it is standardised",
            next_step="correct it, or leave it empty if modality.missing is fill",
        )

    def _index(self, at: int, value: Any) -> float:
        if self.is_missing(value):  # first: a category may be called 'None'
            return self._filled(self.categories[at], self._ends[at] + _MISSING)
        index = self._known[at].get(str(value).strip())
        if index is not None:
            return float(self._ends[at] + index)
        warnings.warn(  # the same text for all values of a column, so that Python shows it once
            f"The column '{self.categories[at]}' holds a category that no training row has: it counts as unknown.",
            stacklevel=2,
        )
        return float(self._ends[at] + _UNKNOWN)

    def _filled(self, column: str, value: float) -> float:
        if self.missing == "refuse":
            raise InputError(
                f"The column '{column}' has no value.",
                allowed="a value of each column, because modality.missing is refuse",
                next_step="fill it, or train with --set modality.missing=fill",
            )
        return value
