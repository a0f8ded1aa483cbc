"""The recipe's section ``tune``: which keys to search, over which ranges, and at what cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, PositiveFloat

from sdcompress.schema.base import Frozen
from sdcompress.schema.recipe_values import PositiveInt

__all__ = ["MEAN", "SearchRange", "Tune", "Value"]

Value = float | int | str | bool
MEAN = "mean"
"""In the place of an exit: the mean over all exits."""

_FORMS = "log:0.01:1, uniform:0:1, int:1:8 or choice:a,b"


@dataclass(frozen=True)
class SearchRange:
    """The values that a key may take.

    Attributes:
        kind: log and uniform are real numbers, log on a logarithmic scale; int are whole numbers.
        low: the smallest, of numbers.
        high: the largest, of numbers.
        choices: of a choice, two or more.
    """

    kind: Literal["log", "uniform", "int", "choice"]
    low: float = math.nan
    high: float = math.nan
    choices: tuple[Value, ...] = ()

    @classmethod
    def parse(cls, text: str) -> SearchRange:
        """Read a range as recipes write it.

        Args:
            text: such as log:0.01:1, uniform:0:1, int:1:8 or choice:a,b.

        Raises:
            ValueError: if it is none.
        """
        kind, _, rest = text.partition(":")
        if kind == "choice":
            choices = tuple(map(_value, rest.split(",")))
            if len(set(choices)) < 2 or len(set(choices)) < len(choices):
                raise ValueError(f"'{text}' needs two or more different choices, e.g. choice:a,b")
            return cls("choice", choices=choices)
        if kind not in ("log", "uniform", "int"):
            raise ValueError(f"'{text}' is no range; write {_FORMS}")
        low, high = _ends(text, rest, whole=kind == "int")
        if not low < high or (kind == "log" and low <= 0):
            raise ValueError(f"'{text}' needs a lower end below the upper one, and of log above 0")
        return cls(kind, low, high)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Return it as recipes write it."""
        if self.kind == "choice":
            return "choice:" + ",".join(map(_spelled, self.choices))
        return f"{self.kind}:{self.low:.15g}:{self.high:.15g}"

    @property
    def corners(self) -> tuple[Value, ...]:
        """Return the values between which all others lie: both ends, or every choice."""
        return self.choices or (self.cast(self.low), self.cast(self.high))

    def holds(self, value: Value) -> bool:
        """Return whether a value is one of the range."""
        if self.kind == "choice":
            return value in self.choices
        return isinstance(value, float | int) and self.low <= value <= self.high

    def cast(self, value: Value) -> Value:
        """Return a number of the range with four significant digits, an int where it is whole; a choice as it is."""
        if self.kind == "choice":
            return value
        if self.kind == "int":
            return int(value)
        return min(max(float(f"{float(value):.4g}"), self.low), self.high)


def _ends(text: str, rest: str, *, whole: bool) -> tuple[float, float]:
    try:
        low, high = (float(int(end)) if whole else float(end) for end in rest.split(":"))
    except ValueError as error:
        raise ValueError(f"'{text}' needs two {'whole ' if whole else ''}numbers; write {_FORMS}") from error
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"'{text}' needs finite numbers")
    return low, high


def _value(text: str) -> Value:
    """Return a choice as the number, the truth value or the text that it spells."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if set(text) & set(".eE") else int(text)
    except ValueError:
        return text


def _spelled(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(text: str) -> str:
    SearchRange.parse(text)
    return text


class Tune(Frozen):
    """The search for better settings on the validation split."""

    not_identifying: ClassVar = frozenset({"trials", "minutes"})

    search: dict[str, Annotated[str, AfterValidator(_checked)]] = Field(
        {},
        description=f"keys of the recipe with ranges, {_FORMS}; default: the learning rate and the method's numbers",
    )
    trials: PositiveInt = Field(20, description="trainings, the first with the recipe's values as they are")
    epochs: PositiveInt | None = Field(None, description="of each trial; default: train.epochs")
    minutes: PositiveFloat | None = Field(
        None, description="of training, over all trials, after which none begins; default: no limit"
    )
    exit: str = Field("final", description="whose validation metric is to be highest; mean: that of all exits")
    sampler: Literal["tpe", "random"] = Field("tpe", description="of Optuna, seeded by the recipe's seed")
    pruner: Literal["none", "median"] = Field(
        "none", description="median: a trial below the median of earlier ones at the same epoch ends early"
    )
