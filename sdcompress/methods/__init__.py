"""One published method per file. 'build' checks a recipe's parameters against the method's own fields."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

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

    Args:
        spec: a name of the room; the name of a file of the user's own (``spec.file``); or two names with a plus, the
            first a method with exits, the second one that gives its last exit's label (``eed+ps_kd``).

    Raises:
        UnknownNameError: if there is no such method.
        RecipeError: if a parameter is unknown or out of range, or the two do not fit together.
    """
    first, plus, second = spec.name.partition("+")
    kind: Any = registry.load_file(spec.file) if spec.file else registry.load(ROOM, first, extra="train")
    _check_method(kind, spec)
    if not plus:
        made: Method = _filled(kind, spec.name, spec.parameters, _parameters(kind))
        return made
    from sdcompress.methods._base import LabelMethod
    from sdcompress.methods._labelled import Labelled

    labels = registry.load(ROOM, second, extra="train")
    if not issubclass(labels, LabelMethod) or issubclass(kind, LabelMethod):
        raise RecipeError(
            f"'{spec.name}' cannot be combined.",
            allowed="METHOD+LABELS: LABELS gives a label for the last exit (" + ", ".join(_label_methods()) + "), "
            "METHOD learns from it and is none of these",
            next_step="write for instance 'eed+ps_kd'",
        )
    known = [*_parameters(kind), *_parameters(labels)]
    own = {key: value for key, value in spec.parameters.items() if key in _parameters(labels)}
    rest = {key: value for key, value in spec.parameters.items() if key not in own}
    return Labelled(
        method=_filled(kind, spec.name, rest, known), labels=_filled(labels, spec.name, own, _parameters(labels))
    )


def _check_method(kind: Any, spec: recipe.Method) -> None:
    from sdcompress.methods._base import Method

    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise RecipeError(
            f"'{spec.file or spec.name}' gives {kind!r}, which is no method.",
            allowed="a file whose __all__ holds one name, that of a subclass of sdcompress.methods._base.Method",
            next_step="follow docs/adding/method.md",
        )


def _label_methods() -> list[str]:
    from sdcompress.methods._base import LabelMethod

    return [name for name in registry.names(ROOM) if issubclass(registry.load(ROOM, name, extra="train"), LabelMethod)]


def _parameters(kind: type[Method]) -> list[str]:
    return sorted(field.name for field in fields(kind))


def _filled(kind: type[Any], name: str, parameters: dict[str, Any], known: list[str]) -> Any:
    for key in parameters:
        if key not in _parameters(kind):
            guess = nearest(key, known)
            raise RecipeError(
                f"The method '{name}' has no parameter '{key}'." + (f" Did you mean '{guess}'?" if guess else ""),
                allowed=", ".join(known) or "(it has none)",
                next_step=f"write 'method.{guess or (known[0] if known else 'name')}' in the recipe, or remove the key",
            )
    try:
        return TypeAdapter(kind).validate_python(parameters)
    except ValidationError as error:
        problems = [f"method.{'.'.join(map(str, p['loc']))} is {p['input']!r}: {p['msg']}" for p in error.errors()]
        raise RecipeError(
            f"The method '{name}' cannot take: {'; '.join(problems)}.", next_step="correct the value in the recipe"
        ) from error
