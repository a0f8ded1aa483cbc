"""The keys of a recipe, with their defaults and meanings, as the schema has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from sdcompress.schema.recipe import Recipe

__all__ = ["Key", "all_keys"]


class Key(NamedTuple):
    """A key of a recipe.

    Attributes:
        name: with dots, as ``--set`` takes it.
        default: as JSON has it.
        meaning: with the allowed values where these are words; may be empty.
    """

    name: str
    default: Any
    meaning: str


def all_keys() -> Iterator[Key]:
    """Return all keys of a recipe in its order; entries such as methods add parameters of their own."""
    return _keys(Recipe(), Recipe.model_json_schema(), "")


def _keys(section: BaseModel, schema: dict[str, Any], prefix: str) -> Iterator[Key]:
    described = schema["$defs"].get(type(section).__name__, schema)["properties"]
    defaults = section.model_dump(mode="json")
    for name, default in section:
        if isinstance(default, BaseModel):
            yield from _keys(default, schema, f"{prefix}{name}.")
            continue
        choices = json.dumps([described[name], *described[name].get("anyOf", ())])
        allowed = ", ".join(dict.fromkeys(re.findall(r'"(.*?)"', "".join(re.findall(r'"enum": \[(.*?)\]', choices)))))
        text = described[name].get("description", "")
        yield Key(f"{prefix}{name}", defaults[name], "; ".join(filter(None, (text, allowed))))
