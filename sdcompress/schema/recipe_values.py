"""Define the kinds of values in a recipe, and its sections whose parameters the entry of a room checks itself."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from sdcompress.schema.base import Frozen

__all__ = [
    "BelowOne",
    "EachOnce",
    "Entry",
    "EntryName",
    "NonNegative",
    "NonNegativeInt",
    "OpenSection",
    "Options",
    "PathText",
    "PositiveInt",
    "Some",
    "Weight",
]

NonNegative = Annotated[float, Field(ge=0.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]
PathText = Annotated[str, Field(max_length=2**12)]
Item = TypeVar("Item")


def _each_once(items: tuple[Item, ...]) -> tuple[Item, ...]:
    if len(set(items)) < len(items):
        raise ValueError("each may be named once")
    return items


EachOnce = Annotated[tuple[Item, ...], AfterValidator(_each_once)]
Some = Annotated[tuple[Item, ...], Field(min_length=1), AfterValidator(_each_once)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_SPELLED = {".inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}  # as YAML writes them; JSON has none of them


def _read_numbers(value: Any) -> Any:
    """Values with the numbers that JSON does not have, which stand in it as YAML spells them."""
    if isinstance(value, dict):
        return {key: _read_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_read_numbers(inner) for inner in value)
    return _SPELLED.get(value, value) if isinstance(value, str) else value


def _spell_numbers(value: Any) -> Any:
    """The inverse of ``_read_numbers``."""
    if isinstance(value, dict):
        return {key: _spell_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_spell_numbers(inner) for inner in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"


Options = Annotated[
    dict[str, Any], AfterValidator(_read_numbers), PlainSerializer(_spell_numbers, dict[str, Any], when_used="json")
]


class OpenSection(Frozen):
    """A section with parameters that the entry of a room checks itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return _read_numbers(value)

    @model_serializer(mode="wrap", when_used="json")
    def _own_numbers(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        spelled = {key: _spell_numbers(value) for key, value in self.parameters.items()}
        return {**dump(self), **{key: value for key, value in spelled.items() if value != self.parameters[key]}}

    @property
    def parameters(self) -> dict[str, Any]:
        """The entry's parameters as written, unchecked."""
        return dict(self.model_extra or {})


class Entry(OpenSection):
    """An entry of a room by name, with its own parameters beside the name; a bare string is the name."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


EntryName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=100)]
