"""One published method per file. 'build' checks a recipe's parameters against the method's own fields."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from sdcompress import registry
from sdcompress.errors import RecipeError, nearest
from sdcompress.schema import recipe

if TYPE_CHECKING:
    from sdcompress.methods._base import Method

__all__ = ["ROOM", "build", "method_classes"]

ROOM = "sdcompress.methods"


def build(spec: recipe.MethodSection) -> Method:
    """Return the method that a recipe names, with the recipe's parameters.

    Args:
        spec: a name of the room; a name of the user's own with its file (``spec.file``); or two names with a plus, the
            first a method with exits, the second one that gives its last exit's label (``eed+ps_kd``), whose
            parameters stand under ``labels``.

    Raises:
        UnknownNameError: if there is no such method.
        RecipeError: if a parameter or preset is unknown or out of range, or the two do not fit together.
    """
    first, plus, second = spec.name.partition("+")
    kind, labels = _kind(spec, first), _kind(spec, second) if plus else None
    if spec.file and {first, second} <= {*registry.names(ROOM), ""}:
        raise RecipeError(
            f"method.file is '{spec.file}', but '{spec.name}' names methods of this package alone.",
            allowed="a name of your own for what is in the file",
            next_step=f"write method.name: {Path(spec.file).stem}, or remove method.file",
        )
    parameters = {**spec.parameters, **({} if spec.preset is None else {"preset": spec.preset})}
    if labels is None:
        method: Method = _filled(kind, spec.name, parameters)
        return method
    from sdcompress.methods._base import LabelMethod
    from sdcompress.methods._labelled import Labelled

    of_labels = parameters.pop("labels", {})
    method = _filled(kind, first, parameters)
    if not issubclass(labels, LabelMethod) or not method.needs.exits:
        raise RecipeError(
            f"'{spec.name}' cannot be combined.",
            allowed=f"METHOD+LABELS: METHOD trains with exits; LABELS gives its last exit's label: {_label_methods()}",
            next_step="write for instance 'eed+ps_kd'",
        )
    if not isinstance(of_labels, dict):
        raise RecipeError(
            f"method.labels is {of_labels!r}.",
            allowed=f"the parameters of '{second}' as keys and values",
            next_step="write for instance method.labels.alpha=0.5",
        )
    return Labelled(method=method, labels=_filled(labels, second, of_labels, "method.labels"))


def method_classes() -> dict[str, type[Method]]:
    """Return the class of each installed method by its name.

    Raises:
        MissingExtraError: if torch is not installed.
    """
    return {name: registry.load(ROOM, name, extra="train") for name in registry.names(ROOM)}


def _kind(spec: recipe.MethodSection, name: str) -> Any:
    if not spec.file or name in registry.names(ROOM):
        return registry.load(ROOM, name, extra="train")
    from sdcompress.methods._base import Method

    kind = registry.load_file(spec.file)
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise RecipeError(
            f"'{spec.file}' gives {kind!r}, which is no method.",
            allowed="a file whose __all__ holds one name, that of a subclass of sdcompress.methods._base.Method",
            next_step="follow docs/adding/method.md",
        )
    return kind


def _label_methods() -> str:
    from sdcompress.methods._base import LabelMethod

    return ", ".join(name for name, kind in method_classes().items() if issubclass(kind, LabelMethod))


def _preset(kind: type[Any], name: str, parameters: dict[str, Any], section: str) -> dict[str, Any]:
    """Return the parameters of the preset that a recipe names; none without one."""
    if "preset" not in parameters:
        return {}
    chosen = parameters["preset"]
    if isinstance(chosen, str) and chosen in kind.presets:
        return dict(kind.presets[chosen])
    raise RecipeError(
        f"The method '{name}' has no preset {chosen!r}.",
        allowed=", ".join(kind.presets) or "(it has none)",
        next_step=f"correct '{section}.preset' in the recipe, or remove the key",
    )


def _filled(kind: type[Any], name: str, parameters: dict[str, Any], section: str = "method") -> Any:
    known = sorted(field.name for field in fields(kind))
    preset = _preset(kind, name, parameters, section)
    parameters = {**preset, **{key: value for key, value in parameters.items() if key != "preset"}}
    for key in parameters:
        if key not in known:
            guess = nearest(key, known)
            raise RecipeError(
                f"The method '{name}' has no parameter '{key}'." + (f" Did you mean '{guess}'?" if guess else ""),
                allowed=", ".join(known) or "(it has none)",
                next_step=f"write '{section}.{guess or (known or ['name'])[0]}' in the recipe, or remove the key",
            )
    try:
        return TypeAdapter(kind).validate_python(parameters)
    except ValidationError as error:
        problems = [f"{section}.{'.'.join(map(str, p['loc']))} is {p['input']!r}: {p['msg']}" for p in error.errors()]
        raise RecipeError(
            f"The method '{name}' cannot take: {'; '.join(problems)}.", next_step="correct the value in the recipe"
        ) from error
