"""One published method per file. 'build' checks a recipe's parameters against the method's own fields."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from sdcompress import registry
from sdcompress.errors import RecipeError, nearest
from sdcompress.schema import recipe

if TYPE_CHECKING:
    from sdcompress.methods._base import Method

__all__ = ["ROOM", "build"]

ROOM = "sdcompress.methods"


def build(spec: recipe.Method) -> Method:
    """The method that a recipe names, with the recipe's parameters.

    Raises:
        UnknownNameError: if there is no such method.
        RecipeError: if a parameter is unknown or out of range.
    """
    method: type[Method] = registry.load(ROOM, spec.name, extra="train")
    known = sorted(field.name for field in fields(method))
    for key in spec.parameters:
        if key not in known:
            guess = nearest(key, known)
            raise RecipeError(
                f"The method '{spec.name}' has no parameter '{key}'." + (f" Did you mean '{guess}'?" if guess else ""),
                allowed=", ".join(known) or "(it has none)",
                next_step=f"write 'method.{guess or (known[0] if known else 'name')}' in the recipe, or remove the key",
            )
    try:
        return TypeAdapter(method).validate_python(spec.parameters)
    except ValidationError as error:
        problems = [f"method.{'.'.join(map(str, p['loc']))} is {p['input']!r}: {p['msg']}" for p in error.errors()]
        raise RecipeError(
            f"The method '{spec.name}' cannot take: {'; '.join(problems)}.", next_step="correct the value in the recipe"
        ) from error
